#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/*
 * One exit per function: each macro expects `unroll_status st` and a label
 * `cleanup` in the calling function, which releases in reverse order and is
 * correct for anything not yet acquired. The MPI and HDF5 forms stand in
 * comm/ and runfile/, beside the only code that calls those libraries.
 */
#include <unroll/status.h>

#define UNROLL_TRY(call)                                                                           \
  do {                                                                                             \
    st = (call);                                                                                   \
    if (st != UNROLL_OK) { goto cleanup; }                                                         \
  } while (0)

#endif
