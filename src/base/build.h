#ifndef BASE_BUILD_H
#define BASE_BUILD_H

/* What this program was built from: set by the build, "unknown" without it. */
#ifndef UNROLL_VERSION
#define UNROLL_VERSION "unknown"
#endif
#ifndef UNROLL_REVISION
#define UNROLL_REVISION "unknown"
#endif
#ifndef UNROLL_COMPILER
#define UNROLL_COMPILER "unknown"
#endif
#ifndef UNROLL_FLAGS
#define UNROLL_FLAGS "unknown"
#endif

#endif
