#include "support.h"

#include "base/cpu.h"
#include <stdio.h>
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

int main(void)
{
  static const struct test_case cases[] = {
      {"quota: version 2", test_quota_of_version_2_is_the_least_on_the_way_out},
      {"quota: version 1", test_quota_of_version_1_is_that_of_the_cpu_controller},
      {"quota: container", test_quota_in_a_container_is_that_of_the_root},
      {"quota: none", test_no_quota_is_zero},
      {"name", test_name_is_one_line},
  };
  return run_cases("cpu", sizeof cases / sizeof cases[0], cases);
}
