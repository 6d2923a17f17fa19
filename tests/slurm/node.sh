#!/bin/bash
# requeue.sbatch, with either launcher, when a node is lost in mid-run: under srun one that freezes, which Slurm finds
# out, under mpirun one that dies, which mpirun notices. The job goes on with other nodes, to the same bits.
#
#   node.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

for launcher in srun mpirun; do
  edit $launcher requeue.sbatch -e "s/^launcher=srun /launcher=$launcher /" -e 's/^options=(/&--checkpoint-every 20 /'
  submit $launcher requeue.sbatch "${two_hosts[@]}" --exclusive
done
declare -A lost
for launcher in srun mpirun; do
  check "$launcher: it trains, and saves" await 100 has_saved $launcher
  lost[$launcher]=$(scontrol show hostnames "$(field $launcher NodeList)" | tail -n 1)
done

frozen=${lost[srun]##*n}
mapfile -t processes < <(on_node "$frozen" .)
check "a node freezes" kill -STOP "${processes[@]}"
check "a node dies" kill -KILL "${slurm_pids[${lost[mpirun]##*n}]}"
echo "lost: ${lost[*]}"

# The node that died is still idle to Slurm for some seconds: then the job may be sent there once more.
# shellcheck disable=SC2317 # called by await
is_in_queue() { [ "$(field "$1" Restarts)" -ge 1 ]; }
for launcher in srun mpirun; do
  check "$launcher: back into the queue" await 100 is_in_queue $launcher
  further $launcher
done
kill -KILL "${slurm_pids[$frozen]}" # it would go on, should it thaw
for launcher in srun mpirun; do
  check "$launcher: the next life ends it" ends $launcher COMPLETED 0:0
  nodes_used=$(scontrol show hostnames "$(field $launcher NodeList)" | tr '\n' ' ')
  check_not "$launcher: on other nodes than before: $nodes_used" grep -qw "${lost[$launcher]}" <<<"$nodes_used"
  check "$launcher: the bits of an undisturbed run" same_bits $launcher
  echo "$launcher: $(field $launcher Restarts) restarts, then on $nodes_used"
done
finish
