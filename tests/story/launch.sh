# Started by another MPI's launcher every rank is alone: one line in all, exit status 2, nothing written. Alone,
# and as one rank of its own or of the other launcher, it runs.
. "$(dirname "$0")/lib.sh"

case $(ldd "$unroll") in
*libmpich*) other=mpirun.openmpi own=mpiexec.mpich library=MPICH ;;
*) other=mpiexec.mpich own=mpirun library='Open MPI' ;;
esac
[ -x "$(command -v $other)" ] || skip "the launcher of another MPI, $other, is not installed"

make_text 3000 >text

# refused PART -- COMMAND...: two processes, one line, nothing written
refused() {
  local part=$1 status files
  shift 2
  timeout -k 5 60 "$@" </dev/null >out 2>err
  status=$?
  # The launcher may tell in its own words that processes left with an exit status; those are not ours.
  grep '^unroll' err >lines
  check "$*: exit status $status: $(cat err)" [ $status = 2 ]
  check "$*: one line: $(cat err)" [ "$(wc -l <lines)" = 1 ]
  check "$*: says nothing of \"$part\": $(cat lines)" grep -qF "$part" lines
  check "$*: names the library: $(cat lines)" grep -qF "built with $library" lines
  check "$*: wrote to standard output" [ ! -s out ]
  files=$(echo *.h5*)
  check "$*: wrote $files" [ "$files" = '*.h5*' ]
}

refused 'started 2 processes' -- $other -n 2 "$unroll" train text "${tiny[@]}" -o run.h5
refused 'started 3 processes' -- $other -n 3 "$unroll" bench --seconds 0.01

accepted() {
  local status
  timeout -k 5 60 "$@" </dev/null >out 2>err
  status=$?
  check "$*: exit status $status: $(tail -1 err)" [ $status = 0 ]
}
accepted "$unroll" train text "${tiny[@]}" -o alone.h5
accepted $other -n 1 "$unroll" train text "${tiny[@]}" -o one.h5
accepted $other -n 2 sh -c "$own -n 1 '$unroll' info alone.h5" # the inner launcher decides
accepted $other -n 2 "$unroll" info alone.h5 # it needs no other rank
check "one page" [ "$(grep -c "^alone.h5: " out)" = 1 ]
# The batch script of a job with four tasks.
accepted env SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_PROCID=0 "$unroll" info alone.h5
# Alone it needs no folder for what ranks share: those of Open MPI's lone processes get into each other's way.
accepted env TMPDIR=/dev/null/none "$unroll" eval alone.h5 text
finish
