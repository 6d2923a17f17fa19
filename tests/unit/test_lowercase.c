#include "support.h"

#include "data/lowercase.h"
#include "data/scan.h"

/* From the code charts of Unicode: of every kind of row the first, the last and what lies between. */
static void test_lowercase_of_known_letters(void)
{
  static const int32_t known[][2] = {
      {'A', 'a'},         {'Z', 'z'},       /* */
      {0xc4, 0xe4},       {0xde, 0xfe},     /* Latin A with diaeresis, thorn */
      {0x100, 0x101},     {0x12e, 0x12f},   /* A with macron, I with ogonek: every other one */
      {0x130, 'i'},       {0x178, 0xff},    /* I with dot, y with diaeresis: of another block */
      {0x1c4, 0x1c6},     {0x1c5, 0x1c6},   /* the digraph DZ with caron, capital and title case */
      {0x23a, 0x2c65},    {0x1e9e, 0xdf},   /* A with stroke: grows to three bytes; sharp s */
      {0x386, 0x3ac},     {0x3a3, 0x3c3},   /* Greek alpha with tonos, sigma */
      {0x41f, 0x43f},     {0x40f, 0x45f},   /* Cyrillic pe, dzhe */
      {0x531, 0x561},     {0x556, 0x586},   /* Armenian */
      {0x10a0, 0x2d00},   {0x10cd, 0x2d2d}, /* Georgian asomtavruli */
      {0x1c90, 0x10d0},   {0x1cbf, 0x10ff}, /* Georgian mtavruli */
      {0x13a0, 0xab70},   {0x13f5, 0x13fd}, /* Cherokee */
      {0x1fbc, 0x1fb3},   {0x2126, 0x3c9},  /* Greek alpha with iota; the sign ohm */
      {0x212a, 'k'},      {0x212b, 0xe5},   /* kelvin, angstrom */
      {0x2160, 0x2170},   {0x24cf, 0x24e9}, /* numeral one, circled Z: no letters */
      {0xff21, 0xff41},   {0xff3a, 0xff5a}, /* full width */
      {0x10400, 0x10428}, {0x1e921, 0x1e943}, /* Deseret, Adlam: the last */
  };
  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
    CU_ASSERT_EQUAL(lowercase_of(known[i][0]), known[i][1]);
  }
}

static void test_lowercase_of_all_else_is_itself(void)
{
  static const int32_t others[] = {0,
                                   '@',
                                   '[',
                                   'a',
                                   0x7f,
                                   0xbf,
                                   0xd7,
                                   0xdf,
                                   0xe4,
                                   0x101,
                                   0x12f,
                                   0x138,
                                   0x3a2,
                                   0x3c2,
                                   0x10c6,
                                   0x10d0,
                                   0x1f58,
                                   0x2c65,
                                   0x4e00,
                                   0xd800,
                                   0xac00,
                                   0xffff,
                                   0x1d400 /* mathematical A */,
                                   0x1e922,
                                   0x10ffff};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; ++i) {
    CU_ASSERT_EQUAL(lowercase_of(others[i]), others[i]);
  }
}

/* 1433: the lines of Unicode 15.0's UnicodeData.txt that have a lower case. */
static void test_lowercase_of_all_code_points_is_lower_case(void)
{
  size_t lowered = 0, unstable = 0, long_ones = 0;
  for (int32_t code = 0; code < SCAN_CODES; ++code) {
    char out[4];
    const int32_t small = lowercase_of(code);
    lowered += small != code;
    unstable += lowercase_of(small) != small;
    long_ones += scan_utf8_encode(small, out) > 2 * scan_utf8_encode(code, out);
  }
  CU_ASSERT_EQUAL(lowered, 1433);
  CU_ASSERT_EQUAL(unstable, 0);
  CU_ASSERT_EQUAL(long_ones, 0); /* scan.c has room for twice as many bytes */
}

int main(void)
{
  static const struct test_case cases[] = {
      {"known letters", test_lowercase_of_known_letters},
      {"all else: itself", test_lowercase_of_all_else_is_itself},
      {"all code points: lower case", test_lowercase_of_all_code_points_is_lower_case},
  };
  return run_cases("lowercase", sizeof cases / sizeof cases[0], cases);
}
