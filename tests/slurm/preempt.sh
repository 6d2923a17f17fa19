#!/bin/bash
# requeue.sbatch, with either launcher, in a partition whose jobs make way for those of another: they save, and go on
# when the other job has ended, to the same bits. And scancel: it saves, and stays away.
#
#   preempt.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm PreemptType=preempt/partition_prio PreemptMode=REQUEUE \
  "PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=2" \
  "PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF"

for launcher in srun mpirun; do
  edit $launcher requeue.sbatch -e "s/^launcher=srun /launcher=$launcher /"
  submit $launcher requeue.sbatch "${two_hosts[@]}" --partition=low --exclusive
done
for launcher in srun mpirun; do check "$launcher: it trains" reports $launcher; done
sbatch --partition=high --nodes=4 --exclusive --output=urgent --wrap 'sleep 1; echo was here'
for launcher in srun mpirun; do
  check "$launcher: makes way" goes_back $launcher
done
for launcher in srun mpirun; do
  check "$launcher: the second life ends it" ends $launcher COMPLETED 0:0
  check "$launcher: restarted once" [ "$(field $launcher Restarts)" = 1 ]
  check "$launcher: saved when told to" says $launcher '^unroll: stopped on a signal at step'
  check "$launcher: the bits of an undisturbed run" same_bits $launcher
done
check "the urgent job ran" grep -q 'was here' urgent

for launcher in srun mpirun; do
  edit $launcher.cancelled requeue.sbatch -e "s/^launcher=srun /launcher=$launcher /"
  submit $launcher.cancelled requeue.sbatch "${two_hosts[@]}"
done
for launcher in srun mpirun; do
  check "$launcher: trains, to be cancelled" reports $launcher.cancelled
  scancel "${job[$launcher.cancelled]}"
done
for launcher in srun mpirun; do
  check "$launcher: cancelled" await 60 is $launcher.cancelled CANCELLED
  check "$launcher: has saved" says $launcher.cancelled '^unroll: stopped on a signal at step'
  check "$launcher: stays away" [ "$(field $launcher.cancelled Restarts)" = 0 ]
done
finish
