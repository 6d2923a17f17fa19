#include "support.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unroll/params.h>

/* Sizes around the rounding, one and several layers. */
static const struct {
  size_t V, H, L;
} models[] = {{1, 1, 1}, {28, 32, 1}, {65, 17, 2}, {300, 16, 3}, {5, 33, 4}, {15, 15, 1}};
#define N_MODELS (sizeof models / sizeof models[0])

static void test_params_new_marks_every_element_once(void)
{
  for (size_t m = 0; m < N_MODELS; ++m) {
    unroll_params *p = NULL;
    unsigned char *owner = NULL;
    size_t owned = 0;
    int twice = 0;
    CHECK_OK(unroll_params_new(
        &(unroll_shape){.V = models[m].V, .H = models[m].H, .L = models[m].L}, &p));
    CHECK_OK(memory_new(p->n, 1, "test", &owner));

    for (size_t k = 0; k < p->n_tensors; ++k) {
      const unroll_tensor *t = &p->tensors[k];
      for (size_t row = 0; row < t->rows; ++row) {
        for (size_t col = 0; col < t->cols; ++col) {
          size_t i = unroll_tensor_index(t, row, col);
          twice |= i >= p->n || owner[i] != 0;
          owner[i < p->n ? i : 0] = 1;
          owned += 1;
        }
      }
    }
    CU_ASSERT_FALSE(twice);
    CU_ASSERT_EQUAL(owned, p->n_real);
    memory_free(&owner);
    unroll_params_free(&p);
  }
}

static void test_params_new_counts_parameters_as_the_equations(void)
{
  for (size_t m = 0; m < N_MODELS; ++m) {
    size_t V = models[m].V, H = models[m].H, L = models[m].L;
    unroll_params *p = NULL;
    CHECK_OK(unroll_params_new(&(unroll_shape){.V = V, .H = H, .L = L}, &p));
    CU_ASSERT_EQUAL(p->n_real, V * H + V + H * V + H * H + H + (L - 1) * (2 * H * H + H));
    CU_ASSERT_EQUAL(p->n_tensors, 2 + 3 * L);
    CU_ASSERT_EQUAL(p->shape.V, V);
    CU_ASSERT_EQUAL(p->shape.H, H);
    CU_ASSERT_EQUAL(p->shape.L, L);
    unroll_params_free(&p);
  }
}

static void test_params_new_aligns_and_packs_tensors(void)
{
  for (size_t m = 0; m < N_MODELS; ++m) {
    unroll_params *p = NULL;
    size_t next = 0;
    CHECK_OK(unroll_params_new(
        &(unroll_shape){.V = models[m].V, .H = models[m].H, .L = models[m].L}, &p));
    for (size_t k = 0; k < p->n_tensors; ++k) {
      const unroll_tensor *t = &p->tensors[k];
      size_t lines = t->col_dim == NULL ? 1 : t->transposed ? t->cols : t->rows;
      size_t length = t->col_dim == NULL || t->transposed ? t->rows : t->cols;
      CU_ASSERT_EQUAL(t->offset, next);
      CU_ASSERT_EQUAL(t->offset % 16, 0);
      CU_ASSERT_EQUAL(t->ld % 16, 0);
      CU_ASSERT(t->ld >= length && t->ld < length + 16);
      next += lines * t->ld;
    }
    CU_ASSERT_EQUAL(next, p->n);
    CU_ASSERT_EQUAL((uintptr_t)p->values % MEMORY_ALIGNMENT, 0);
    unroll_params_free(&p);
  }
}

static void test_params_new_orders_tensors_as_gradients_become_complete(void)
{
  static const char *const order[] = {"output/W_qh", "output/b_q",  "layer2/W_hh", "layer2/b_h",
                                      "layer2/W_xh", "layer1/W_hh", "layer1/b_h",  "layer1/W_xh",
                                      "layer0/W_hh", "layer0/b_h",  "layer0/W_xh"};
  unroll_params *p = NULL;
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 20, .H = 30, .L = 3}, &p));
  CU_ASSERT_EQUAL(p->n_tensors, sizeof order / sizeof order[0]);
  for (size_t k = 0; k < p->n_tensors; ++k) {
    char name[32];
    (void)snprintf(name, sizeof name, "%s/%s", p->tensors[k].group, p->tensors[k].name);
    CU_ASSERT_STRING_EQUAL(name, order[k]);
  }
  CU_ASSERT_EQUAL(p->n_output, p->tensors[2].offset);
  unroll_params_free(&p);
}

static void test_params_new_starts_at_zero(void)
{
  unroll_params *p = NULL;
  int zero = 1;
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 20, .H = 30, .L = 2}, &p));
  for (size_t i = 0; i < p->n; ++i) { zero &= p->values[i] == 0; }
  CU_ASSERT(zero);
  unroll_params_free(&p);
}

/* Shape, dimensions and layout of one tensor. */
static int is(const unroll_params *p, const char *group, const char *name, size_t rows, size_t cols,
              const char *row_dim, const char *col_dim, bool transposed)
{
  const unroll_tensor *t = unroll_params_find(p, group, name);
  return t != NULL && t->rows == rows && t->cols == cols && strcmp(t->row_dim, row_dim) == 0 &&
         (col_dim == NULL ? t->col_dim == NULL
                          : t->col_dim != NULL && strcmp(t->col_dim, col_dim) == 0) &&
         t->transposed == transposed && t->long_name != NULL && t->long_name[0] != '\0';
}

static void test_params_find_returns_the_shapes_of_the_equations(void)
{
  unroll_params *p = NULL;
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 20, .H = 30, .L = 2}, &p));
  CU_ASSERT(is(p, "layer0", "W_xh", 30, 20, "hidden", "vocab", true));
  CU_ASSERT(is(p, "layer0", "W_hh", 30, 30, "hidden", "hidden_in", false));
  CU_ASSERT(is(p, "layer0", "b_h", 30, 1, "hidden", NULL, false));
  CU_ASSERT(is(p, "layer1", "W_xh", 30, 30, "hidden", "hidden_below", false));
  CU_ASSERT(is(p, "layer1", "W_hh", 30, 30, "hidden", "hidden_in", false));
  CU_ASSERT(is(p, "layer1", "b_h", 30, 1, "hidden", NULL, false));
  CU_ASSERT(is(p, "output", "W_qh", 20, 30, "vocab", "hidden", false));
  CU_ASSERT(is(p, "output", "b_q", 20, 1, "vocab", NULL, false));
  unroll_params_free(&p);
}

/* An embedding: a table that comes last in memory, and a W_xh of the first layer like those above. */
static void test_params_new_with_an_embedding(void)
{
  static const unroll_cell cells[] = {UNROLL_CELL_RNN, UNROLL_CELL_LSTM, UNROLL_CELL_GRU,
                                      UNROLL_CELL_MINGRU};
  for (size_t k = 0; k < sizeof cells / sizeof cells[0]; ++k) {
    const size_t blocks[] = {1, 4, 3, 2}, G = blocks[k];
    const char *const rows = k == 0 ? "hidden" : "gate";
    unroll_shape shape = {.V = 20, .H = 30, .L = 2, .cell = cells[k]};
    unroll_params *p = NULL, *plain = NULL;
    CHECK_OK(unroll_params_new(&shape, &plain));
    shape.E = 17;
    CHECK_OK(unroll_params_new(&shape, &p));
    CU_ASSERT(is(p, "input", "W_xe", 20, 17, "vocab", "embedding", false));
    CU_ASSERT(is(p, "layer0", "W_xh", G * 30, 17, rows, "embedding", false));
    CU_ASSERT(is(p, "layer1", "W_xh", G * 30, 30, rows, "hidden_below", false));
    CU_ASSERT(is(plain, "layer0", "W_xh", G * 30, 20, rows, "vocab", true));
    CU_ASSERT_PTR_NULL(unroll_params_find(plain, "input", "W_xe"));
    CU_ASSERT_STRING_EQUAL(p->tensors[p->n_tensors - 1].name, "W_xe");
    CU_ASSERT_EQUAL(p->n_tensors, plain->n_tensors + 1);
    CU_ASSERT_EQUAL(p->n_real, plain->n_real + 20 * 17 + G * 30 * 17 - G * 30 * 20);
    CU_ASSERT(p->n_gradient == p->n && plain->n_gradient == plain->n);
    unroll_params_free(&p);

    shape.tied = true; /* no table of its own, but a gradient */
    shape.E = shape.H;
    CHECK_OK(unroll_params_new(&shape, &p));
    CU_ASSERT_PTR_NULL(unroll_params_find(p, "input", "W_xe"));
    CU_ASSERT(is(p, "layer0", "W_xh", G * 30, 30, rows, "embedding", false));
    CU_ASSERT_EQUAL(p->n_tensors, plain->n_tensors);
    CU_ASSERT_EQUAL(p->n_gradient, p->n + 20 * unroll_params_find(p, "output", "W_qh")->ld);
    unroll_params_free(&plain);
    unroll_params_free(&p);
  }
}

static void test_params_find_of_unknown_name_is_null(void)
{
  unroll_params *p = NULL;
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 20, .H = 30, .L = 2}, &p));
  CU_ASSERT_PTR_NULL(unroll_params_find(p, "layer2", "W_hh"));
  CU_ASSERT_PTR_NULL(unroll_params_find(p, "output", "W_hh"));
  CU_ASSERT_PTR_NULL(unroll_params_find(p, "layer0", "W_qh"));
  unroll_params_free(&p);
}

static void test_params_new_too_large_fails_and_leaves_out(void)
{
  static const struct {
    size_t V, H, L;
    const char *part;
  } sizes[] = {{SIZE_MAX, 1, 1, "parameters"},
               {1, SIZE_MAX, 1, "parameters"},
               {(size_t)1 << 32, (size_t)1 << 32, 1, "parameters"},
               {(size_t)1 << 31, (size_t)1 << 31, 1, "parameters"},
               {1, (size_t)1 << 31, 4, "parameters"},
               {1, 1, (size_t)UINT32_MAX + 1, "layers"},
               {1, 1, SIZE_MAX, "layers"}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    unroll_params *p = NULL;
    CHECK_FAILS(
        unroll_params_new(&(unroll_shape){.V = sizes[i].V, .H = sizes[i].H, .L = sizes[i].L}, &p),
        UNROLL_ERR_MEMORY, sizes[i].part);
    CU_ASSERT_PTR_NULL(p);
  }
}

static void test_params_free_twice_is_safe(void)
{
  unroll_params *p = NULL;
  CHECK_OK(unroll_params_new(&(unroll_shape){.V = 2, .H = 3, .L = 1}, &p));
  unroll_params_free(&p);
  CU_ASSERT_PTR_NULL(p);
  unroll_params_free(&p);
  unroll_params_free(NULL);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"new: every element belongs to one tensor", test_params_new_marks_every_element_once},
      {"new: parameters as in the equations", test_params_new_counts_parameters_as_the_equations},
      {"new: tensors are aligned and without gaps", test_params_new_aligns_and_packs_tensors},
      {"new: order of completed gradients",
       test_params_new_orders_tensors_as_gradients_become_complete},
      {"new: all values zero", test_params_new_starts_at_zero},
      {"find: shapes and dimensions", test_params_find_returns_the_shapes_of_the_equations},
      {"new: with an embedding", test_params_new_with_an_embedding},
      {"find: unknown is NULL", test_params_find_of_unknown_name_is_null},
      {"new: too large is an error", test_params_new_too_large_fails_and_leaves_out},
      {"free: twice is safe", test_params_free_twice_is_safe},
  };
  return run_cases("params", sizeof cases / sizeof cases[0], cases);
}
