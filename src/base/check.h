#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/*
 * One exit per function: each macro expects `unroll_status st` and a label
 * `cleanup` in the calling function, which releases in reverse order and is
 * correct for anything not yet acquired. The forms for MPI and HDF5 calls are in
 * comm/ and runfile/, the only folders that call those libraries.
 */
#include <unroll/status.h>

#define UNROLL_TRY(call)                                                                           \
  do {                                                                                             \
    st = (call);                                                                                   \
    if (st != UNROLL_OK) { goto cleanup; }                                                         \
  } while (0)

#endif
