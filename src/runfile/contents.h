#ifndef RUNFILE_CONTENTS_H
#define RUNFILE_CONTENTS_H

/*
 * A run file is data, and may come from anywhere: nothing in it may lead out of the file, and nothing may be
 * larger than what the file can hold. Asked once, of all that is in it, before anything is read or memory asked for.
 */
#include "runfile/h5.h"

/**
 * Refuse links to other files and user-defined ones, datasets that are virtual or keep their values elsewhere, filters other
 * than deflate, shuffle and fletcher32, and datasets that declare more than is stored.
 *
 * @param[in] bytes  of the file
 * @param[in] whole  its digest is right: nothing is missing; else also refuse datasets with a checksum that have not all
 *                   of their chunks, or one without it
 *
 * @return UNROLL_OK, or file->failure: the first such object by name
 */
unroll_status contents_check(const h5_file *file, uint64_t bytes, bool whole);

#endif
