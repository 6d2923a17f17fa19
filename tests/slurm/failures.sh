#!/bin/bash
# Jobs whose ranks die. requeue.sbatch, with either launcher: a rank killed in mid-run, or out of memory: back into the
# queue, to the bits of an undisturbed run. Out of memory in every life: it stays away after a few. Which deaths are
# counted. And a wrong --mpi=.
#
#   failures.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
is_sanitized && skip "sanitizers change how much memory a program takes"
need_slurm
start_slurm

# Rank 1 may have 600 MB of addresses in its first life, or in all: the model below wants some more.
cat >bin/limited <<'SCRIPT'
#!/bin/bash
if [ "${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID}" = 1 ] && [ -e always -o -z "$SLURM_RESTART_COUNT" ]; then ulimit -v 600000; fi
exec unroll "$@"
SCRIPT
chmod +x bin/limited
large=(--hidden 4096 --batch 4 --steps 4 --epochs 1 --max-steps 3 --log-every 1)

for launcher in srun mpirun; do
  by=(-e "s/^launcher=srun /launcher=$launcher /")
  edit $launcher.killed requeue.sbatch "${by[@]}" -e 's/^options=(/&--checkpoint-every 20 /'
  # One rank a host: where a host keeps another, the pmix of Slurm 22.05 ends the step by itself.
  submit $launcher.killed requeue.sbatch --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --mem-per-cpu=50
  edit $launcher.memory requeue.sbatch "${by[@]}" -e "s/^options=(.*/options=(${large[*]})/" -e 's/ unroll train/ limited train/'
  submit $launcher.memory requeue.sbatch --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --mem-per-cpu=1000
done
edit always requeue.sbatch -e "s/^options=(.*/options=(${large[*]})/" -e 's/ unroll train/ limited train/' -e 's/^deaths=3/deaths=1/'
touch always/always
submit always requeue.sbatch --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 --mem-per-cpu=1000

# A job that ends its lives with these statuses, after + having saved. Of two deaths in a row without a save the second is
# the last: restarts for another reason, and a death after a save, are none of them.
cat >bin/live <<'SCRIPT'
#!/bin/bash
read -ra lives <lives
how=${lives[${SLURM_RESTART_COUNT:-0}]}
if [ "$how" != "${how#+}" ]; then date +%N >run.h5; fi
exit "${how#+}"
SCRIPT
chmod +x bin/live
edit lives requeue.sbatch -e 's/ unroll train/ live/' -e 's/^deaths=3/deaths=1/'
echo 75 9 75 9 +9 9 9 9 >lives/lives && touch lives/goal
submit lives requeue.sbatch --nodes=1 --ntasks-per-node=1 --cpus-per-task=1 --mem-per-cpu=50

for type in none pmi2; do
  edit $type train.sbatch -e "s/--mpi=pmix/--mpi=$type/"
  submit $type train.sbatch "${two_hosts[@]}"
done

# The life in which a rank is killed: the launcher of a busy machine may fail in one, which is another reason to go back.
declare -A life
for launcher in srun mpirun; do
  check "$launcher: saves" await 100 has_saved $launcher.killed
  life[$launcher]=$(field $launcher.killed Restarts)
  [ "${life[$launcher]}" = 0 ] || { echo "before a rank is killed:" && show $launcher.killed; }
  # A rank of this job: those of others have another folder.
  host=$(scontrol show hostnames "$(field $launcher.killed NodeList)" | tail -n 1)
  rank=
  for pid in $(on_node "${host##*n}" unroll); do
    if [ "$(readlink "/proc/$pid/cwd")" = "$work/$launcher.killed" ]; then rank=$pid; fi
  done
  check "$launcher: a rank is killed" kill -KILL "${rank:-none}"
done
for launcher in srun mpirun; do
  check "$launcher: a killed rank: back into the queue" goes_back $launcher.killed $((life[$launcher] + 1))
done
for launcher in srun mpirun; do
  check "$launcher: after a killed rank" ends $launcher.killed COMPLETED 0:0
  check "$launcher: it says why" grep -q "status 1[0-9][0-9] after ${life[$launcher]} restarts: back into the queue" $launcher.killed/out
  check "$launcher: the bits of an undisturbed run" same_bits $launcher.killed
done

check "large" "$unroll" train corpus.txt "${large[@]}" -o large.h5 >large 2>&1
for launcher in srun mpirun; do
  check "$launcher: after want of memory" ends $launcher.memory COMPLETED 0:0
  check "$launcher: it was wanted" grep -q 'no memory for [0-9]* bytes' $launcher.memory/out
  check "$launcher: restarted once" [ "$(field $launcher.memory Restarts)" = 1 ]
  check "$launcher: the bits of an undisturbed run" same_run large.h5 $launcher.memory/run.h5
done
check "memory never enough" ends always FAILED 1:0
check "in two lives" [ "$(field always Restarts) $(grep -c 'no memory for' always/out)" = "1 2" ]
check "no run" [ ! -e always/run.h5 ]
check "lives and deaths" ends lives FAILED 9:0
check "in seven lives" [ "$(field lives Restarts)" = 6 ]
check "nothing is left of the count" [ ! -e lives/run.h5.deaths ]

for type in none pmi2; do
  check "--mpi=$type: it ends" await 60 is $type FAILED
  check "--mpi=$type: nothing is trained" [ ! -e $type/run.h5 ]
  # Open MPI itself refuses, or, where it takes them for lone ranks, this program does.
  check "--mpi=$type: it says why" grep -q -e "not built with SLURM's PMI support" -e 'started 4 processes' $type/out
done
finish
