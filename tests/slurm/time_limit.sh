#!/bin/bash
# requeue.sbatch, with either launcher, and array.sbatch with a real time limit, of one minute, the shortest that Slurm
# knows: it sends the signal, they save, go back into the queue and carry on, to the bits of an undisturbed run.
#
#   time_limit.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

for launcher in srun mpirun; do
  edit $launcher requeue.sbatch -e "s/^launcher=srun /launcher=$launcher /"
  submit $launcher requeue.sbatch "${two_hosts[@]}" --time=1 --signal=B:USR1@30
done
edit sweep array.sbatch -e 's/(how_far)/(how_far sweep\/1.h5)/' -e '/^--hidden .*/d' -e "s/^table='/&\n--seed 1/" \
  -e 's/^ranking() {/&\n  until [ -e goal ]; do sleep 0.1; done/' # not before the task is back in the queue
submit sweep array.sbatch --array=1 --nodes=1 --ntasks-per-node=2 --cpus-per-task="$cpus" --mem-per-cpu=50 \
  --time=1 --signal=USR1@30
run() { [ "$1" = sweep ] && echo sweep/1.h5 || echo run.h5; }

for name in srun mpirun sweep; do
  check "$name: back into the queue" await 120 has_restarted $name 1
  further $name "$(run $name)"
done
for name in srun mpirun sweep; do
  check "$name: the second life ends it" ends $name COMPLETED 0:0
  check "$name: restarted once" [ "$(field $name Restarts)" = 1 ]
  check "$name: saved in time" grep -q '^unroll: stopped on a signal at step' $name/out
done
check "srun: the bits of an undisturbed run" same_bits srun
check "mpirun: the bits of an undisturbed run" same_bits mpirun
check "sweep: the bits of an undisturbed run" same_bits sweep sweep/1.h5
finish
