#include "support.h"

#include "kernels/dispatch.h"
#include "net/network.h"

/* Tokens of a rank are numbered in 32 bits; a network of more would mix them up, where there is memory for it. */
static void test_network_new_of_too_many_tokens_fails_before_it_takes_memory(void)
{
  static const struct {
    size_t T, B;
  } sizes[] = {{1000000, 5000}, {UINT32_MAX, 1}, {1, UINT32_MAX}, {65536, 65536}, {65535, 65536}};
  unroll_params *p = NULL;
  CHECK_OK(kernels_start());
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 2, .H = 1, .L = 1}, &p));
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    const network_size size = {
        .T = sizes[i].T, .chunk = sizes[i].T, .B = sizes[i].B, .shards = 1, .group = 1};
    network *net = NULL;
    CHECK_FAILS(network_new(p, &size, &net), UNROLL_ERR_ARG, "legal are 4294967295 tokens");
    CU_ASSERT_PTR_NULL(net);
  }
  unroll_params_free(&p);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"new: too many tokens", test_network_new_of_too_many_tokens_fails_before_it_takes_memory},
  };
  return run_cases("network", sizeof cases / sizeof cases[0], cases);
}
