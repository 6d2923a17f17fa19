#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

/*
 * What a fuzzer and driver.c call: a target reads any bytes, and aborts where something that must hold does not.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/status.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) { fuzz_abort(#condition, __FILE__, __LINE__); }                              \
  } while (0)

static inline void fuzz_abort(const char *condition, const char *file, int line)
{
  fprintf(stderr, "%s:%d: not so: %s; the last failure: %s\n", file, line, condition,
          unroll_message());
  abort();
}

/* A failure is one line with something in it. */
static inline void must_be_told(void)
{
  const char *line = unroll_message();
  MUST(line[0] != '\0' && strchr(line, '\n') == NULL && strchr(line, '\x1b') == NULL);
}

/* The input, from its beginning to its end; behind that, zeros. */
typedef struct input {
  const uint8_t *at;
  size_t left;
} input;

static inline unsigned take_byte(input *in)
{
  if (in->left == 0) { return 0; }
  in->left -= 1;
  return *in->at++;
}

static inline uint64_t take_number(input *in, size_t bytes)
{
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) { value |= (uint64_t)take_byte(in) << (8 * i); }
  return value;
}

#endif
