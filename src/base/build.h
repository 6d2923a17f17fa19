#ifndef BASE_BUILD_H
#define BASE_BUILD_H

/* What this program was built from: set by the build, "unknown" without it. */
#ifndef UNROLL_VERSION
#define UNROLL_VERSION "unknown"
#endif
#ifndef UNROLL_COMPILER
#define UNROLL_COMPILER "unknown"
#endif
#ifndef UNROLL_FLAGS
#define UNROLL_FLAGS "unknown"
#endif

/* The commit, or "unknown"; in a generated file of its own (CMakeLists.txt), the only one to compile again for each
 * commit. */
extern const char build_revision[];

#endif
