#include "support.h"

#include "base/cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The folder that stands for /sys/fs/cgroup, and the list of groups of a process. */
static char root[256], groups[300];

static void put(const char *name, const char *text)
{
  char path[700];
  (void)snprintf(path, sizeof path, "%s/%s", root, name);
  for (char *slash = strchr(path + strlen(root) + 1, '/'); slash != NULL;
       slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    (void)mkdir(path, 0700);
    *slash = '/';
  }
  test_write_file(path, text, strlen(text));
}

static int quota(const char *list, uint64_t *group)
{
  test_write_file(groups, list, strlen(list));
  return cpu_quota(groups, root, group);
}

static void start(void)
{
  test_folder(root);
  (void)snprintf(groups, sizeof groups, "%s/groups", root);
}

static void test_quota_of_version_2_is_the_least_on_the_way_out(void)
{
  uint64_t group = 0, other = 0;
  start();
  put("job/step/task/cpu.max", "max 100000\n");
  put("job/step/cpu.max", "300000 100000\n");
  put("job/cpu.max", "150000 100000\n"); /* one and a half cores count as two */
  put("job/other/cpu.max", "max 100000\n");
  CU_ASSERT_EQUAL(quota("0::/job/step/task\n", &group), 2);
  CU_ASSERT_NOT_EQUAL(group, 0);
  CU_ASSERT_EQUAL(quota("0::/job/other\n", &other), 2);
  CU_ASSERT_EQUAL(group, other); /* they share it */
  put("job/other/cpu.max", "100000 100000\n");
  CU_ASSERT_EQUAL(quota("0::/job/other\n", &other), 1);
  CU_ASSERT_NOT_EQUAL(group, other);
}

static void test_quota_of_version_1_is_that_of_the_cpu_controller(void)
{
  uint64_t group = 0;
  start();
  put("cpu/job/cpu.cfs_quota_us", "400000\n");
  put("cpu/job/cpu.cfs_period_us", "100000\n");
  put("cpu/cpu.cfs_quota_us", "-1\n");
  put("cpu/cpu.cfs_period_us", "100000\n");
  CU_ASSERT_EQUAL(quota("7:cpuset:/\n4:cpuacct,cpu:/job\n1:name=systemd:/\n", &group), 4);
  CU_ASSERT_EQUAL(quota("7:cpuset:/job\n4:cpu:/\n", &group), 0);
  CU_ASSERT_EQUAL(group, 0);
}

/* The path is that of the host, of which the container sees its own group as the root. */
static void test_quota_in_a_container_is_that_of_the_root(void)
{
  uint64_t group = 0;
  start();
  put("cpu.max", "200000 100000\n");
  CU_ASSERT_EQUAL(quota("0::/docker/0123456789abcdef\n", &group), 2);
  CU_ASSERT_EQUAL(quota("0::/\n", &group), 2);
}

static void test_no_quota_is_zero(void)
{
  uint64_t group = 7;
  start();
  CU_ASSERT_EQUAL(quota("", &group), 0);
  CU_ASSERT_EQUAL(group, 0);
  CU_ASSERT_EQUAL(quota("0::/a\nnonsense\n1:cpu\n::\n", &group), 0);
  put("a/cpu.max", "many few\n");
  CU_ASSERT_EQUAL(quota("0::/a\n", &group), 0);
  CU_ASSERT_EQUAL(cpu_quota("/nowhere/groups", root, &group), 0);
  (void)cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup", &group); /* whatever this machine has */
}

static void test_name_is_one_line(void)
{
  char name[256] = "";
  cpu_name(sizeof name, name);
  CU_ASSERT(strlen(name) > 0 && strchr(name, '\n') == NULL);
}

static int are(cpu_cache_sizes c, size_t l1d, size_t l2, size_t l3)
{
  return c.l1d == l1d && c.l2 == l2 && c.l3 == l3;
}

static void put_cache(const char *index, const char *level, const char *type, const char *size)
{
  char name[64];
  (void)snprintf(name, sizeof name, "%s/level", index);
  put(name, level);
  (void)snprintf(name, sizeof name, "%s/type", index);
  put(name, type);
  (void)snprintf(name, sizeof name, "%s/size", index);
  put(name, size);
}

static void test_caches_of_the_machine_hold_data(void)
{
  cpu_cache_sizes found = {0, 0, 0}, empty = {0, 0, 0};
  (void)unsetenv("UNROLL_CACHES");
  start();
  CHECK_OK(cpu_caches(root, &empty)); /* as the C library knows, or small */
  CU_ASSERT(empty.l1d > 0 && empty.l2 > 0 && empty.l3 > 0);

  put_cache("index0", "1\n", "Data\n", "48K\n");
  put_cache("index1", "1\n", "Instruction\n", "33K\n");
  put_cache("index2", "2\n", "Unified\n", "2049K\n");
  CHECK_OK(cpu_caches(root, &found));
  CU_ASSERT(are(found, 48 << 10, 2049 << 10, empty.l3)); /* a machine without, or silent about it */
  put_cache("index3", "3\n", "Unified\n", "337920K\n");
  put_cache("index4", "4\n", "Unified\n", "1G\n");
  CHECK_OK(cpu_caches(root, &found));
  CU_ASSERT(are(found, 48 << 10, 2049 << 10, (size_t)330 << 20));
  put_cache("index2", "2\n", "Unified\n", "0K\n");
  put_cache("index3", "three\n", "Unified\n", "5K\n");
  CHECK_OK(cpu_caches(root, &found));
  CU_ASSERT(are(found, 48 << 10, empty.l2, empty.l3));
}

static void test_caches_of_the_environment_come_first(void)
{
  static const struct {
    const char *text;
    cpu_cache_sizes sizes;
  } legal[] = {
      {"32K,512K,32M", {32 << 10, 512 << 10, 32 << 20}},
      {"1,1,1", {1, 1, 1}},
      {"3M,2K,1", {3 << 20, 2 << 10, 1}}, /* no order among them */
      {"1024G,1,1099511627776", {CPU_CACHE_MAX, 1, CPU_CACHE_MAX}},
  };
  cpu_cache_sizes found = {0, 0, 0};
  start();
  put_cache("index0", "1\n", "Data\n", "48K\n");
  for (size_t i = 0; i < sizeof legal / sizeof legal[0]; ++i) {
    (void)setenv("UNROLL_CACHES", legal[i].text, 1);
    CHECK_OK(cpu_caches(root, &found));
    CU_ASSERT(are(found, legal[i].sizes.l1d, legal[i].sizes.l2, legal[i].sizes.l3));
  }
  (void)unsetenv("UNROLL_CACHES");
}

static void test_caches_that_are_no_sizes_are_refused(void)
{
  static const char *const wrong[] = {
      "",
      "32K",
      "32K,512K",
      "32K,512K,",
      "32K,512K,32M,",
      "32K,512K,32M,1",
      "0,1,1",
      "1,0,1",
      "1,1,0",
      "-1,1,1",
      "1,+1,1",
      " 1,1,1",
      "1, 1,1",
      "1,1,1 ",
      "1;1;1",
      "32k,512k,32m",
      "32KB,1,1",
      "1.5K,1,1",
      "K,1,1",
      "1025G,1,1",
      "1,1,1T",
      "1,1,1099511627777",
      "1,1,99999999999999999999999999999999999999G",
      "1,18446744073709551617,1",
  };
  cpu_cache_sizes found = {7, 8, 9};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    (void)setenv("UNROLL_CACHES", wrong[i], 1);
    CHECK_FAILS(cpu_caches(CPU_CACHE_FOLDER, &found), UNROLL_ERR_ARG, wrong[i]);
    CHECK_FAILS(cpu_caches(CPU_CACHE_FOLDER, &found), UNROLL_ERR_ARG, "32K,512K,32M");
  }
  CU_ASSERT(are(found, 7, 8, 9));
  (void)unsetenv("UNROLL_CACHES");
}

int main(void)
{
  static const struct test_case cases[] = {
      {"quota: version 2", test_quota_of_version_2_is_the_least_on_the_way_out},
      {"quota: version 1", test_quota_of_version_1_is_that_of_the_cpu_controller},
      {"quota: container", test_quota_in_a_container_is_that_of_the_root},
      {"quota: none", test_no_quota_is_zero},
      {"name", test_name_is_one_line},
      {"caches: machine", test_caches_of_the_machine_hold_data},
      {"caches: environment", test_caches_of_the_environment_come_first},
      {"caches: refused", test_caches_that_are_no_sizes_are_refused},
  };
  return run_cases("cpu", sizeof cases / sizeof cases[0], cases);
}
