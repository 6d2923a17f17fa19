#!/bin/bash
# requeue.sbatch, with either launcher: signal, checkpoint, back into the queue, the bits of a run that never stopped.
# The signal is sent as Slurm sends it before the time limit, to the script alone (time_limit.sh waits for a real one).
#
#   requeue.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

for launcher in srun mpirun; do
  edit $launcher requeue.sbatch -e "s/^launcher=srun /launcher=$launcher /"
  submit $launcher requeue.sbatch "${two_hosts[@]}"
done
edit typo requeue.sbatch -e 's/^options=(/&--hiden 3 /'
submit typo requeue.sbatch "${two_hosts[@]}"

for launcher in srun mpirun; do
  check "$launcher: it trains" reports $launcher
  scancel --batch --signal=USR1 "${job[$launcher]}"
done
for launcher in srun mpirun; do
  check "$launcher: back into the queue" goes_back $launcher
done
for launcher in srun mpirun; do
  check "$launcher: the second life ends it" ends $launcher COMPLETED 0:0
  check "$launcher: the log has both lives" [ "$(grep -c '^unroll [0-9]' $launcher/out)" = 2 ]
  check "$launcher: the first ended with 75" grep -q 'status 75 after 0 restarts: back into the queue' $launcher/out
  check "$launcher: four ranks on two hosts" grep -q '^4 ranks x .* 2 hosts: ' $launcher/out
  check "$launcher: the bits of an undisturbed run" same_bits $launcher
done

check "wrong usage" ends typo FAILED 2:0
check "wrong usage goes not back" [ "$(field typo Restarts)" = 0 ]
check "wrong usage is told" grep -q 'hiden' typo/out
finish
