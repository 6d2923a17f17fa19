#include "base/check.h"
#include "runfile/checksums.h"
#include "runfile/guard.h"
#include "runfile/runfile.h"

#include <stdio.h>

static unroll_status check_all(const h5_file *file, void *context)
{
  return checksums_check(file, context);
}

unroll_status runfile_verify(const char *path, runfile_proof *out)
{
  unroll_status st = UNROLL_OK;
  guarded what;
  checksums sums = {0};

  UNROLL_TRY(guard_open(path, check_all, &sums, &what));
  out->bytes = what.bytes;
  out->whole = what.digest == DIGEST_RIGHT;
  (void)snprintf(out->sha256, sizeof out->sha256, "%s", what.sha256);
  out->n_checked = sums.n_checked;
  out->n_without = sums.n_without;

cleanup:
  return st;
}
