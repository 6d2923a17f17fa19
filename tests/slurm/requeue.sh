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
# A launcher that ends with a status of its own, although the run is finished.
edit own requeue.sbatch -e 's/^options=.*/options=(--hidden 8 --batch 16 --steps 20 --epochs 1)/' \
  -e 's/^"${launch\[@\]}" .* &$/{ &/' -e 's/^\({ "${launch.*"\) &$/\1; exit 1; } \&/'
submit own requeue.sbatch "${two_hosts[@]}"
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

check "a finished run whose launcher ends with 1 is done" ends own COMPLETED 0:0
check "and goes not back" [ "$(field own Restarts)" = 0 ]
check "wrong usage" ends typo FAILED 2:0
check "wrong usage goes not back" [ "$(field typo Restarts)" = 0 ]
check "wrong usage is told" grep -q 'hiden' typo/out
finish
