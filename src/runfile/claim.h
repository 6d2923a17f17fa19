#ifndef RUNFILE_CLAIM_H
#define RUNFILE_CLAIM_H

/*
 * A claim on the name of a run: a file .NAME.claim beside NAME.h5 that says who writes it, so that two runs never
 * write one name. It begins with a dot, as a text that is a folder must not have it as a part.
 *
 * Created with O_EXCL, which is atomic on NFS as well; no locks. The claim of a run that died is taken over, where
 * that is sure:
 *
 *   on this host          its process is gone; one that is about to go is waited for
 *   in the same job       which Slurm has started again since, or which runs on another host now (PBS, LSF)
 *   in an earlier job     for whose end this one has waited (sbatch --dependency)
 *
 * Anywhere else nobody can know: the line of the refusal says what to remove.
 */
#include <unroll/status.h>

typedef struct claim claim;

/**
 * Claim the name of the run file `path`, and remove what dead runs of that name left half written.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: another run has it, or nothing can be created beside it
 *
 * Collective: no; rank 0 only
 */
unroll_status claim_take(const char *path, claim **out);

/**
 * Is it still ours? A run that was out of reach for long, with its node, may find that its job goes on elsewhere.
 *
 * @return UNROLL_OK, also without a claim or where somebody removed it, or UNROLL_ERR_IO: another run has it
 */
unroll_status claim_check(const claim *c);

/** Give the name back; NULL and twice are safe. */
void claim_free(claim **c);

#endif
