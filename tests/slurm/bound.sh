#!/bin/bash
# The scripts that start mpirun, on a node whose CPUs are all the job's: it binds each rank to CPUs of its own. (In the
# other tests a node seems to have more CPUs than it has, and no rank is bound.)
#
#   bound.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
need_slurm
start_slurm

ranks=$(($(nproc) % 2 ? 1 : 2))
export OMPI_MCA_hwloc_base_report_bindings=1
for script in train-mpirun requeue; do
  edit $script $script.sbatch -e 's/^launcher=srun /launcher=mpirun /' -e '/^#SBATCH --mem-per-cpu/d'
  sed -i 's/^options=.*/options=(--hidden 8 --batch 16 --steps 20 --epochs 1)/' $script/$script.sbatch
  submit $script $script.sbatch --nodes=1 --ntasks-per-node=$ranks --cpus-per-task=$(($(nproc) / ranks))
done
for script in train-mpirun requeue; do
  check "$script: it ends" ends $script COMPLETED 0:0
  sed -n 's/.*MCW rank [0-9]* bound to //p' $script/out | tee bound
  check "$script: each rank has its own CPUs" [ "$(sort -u bound | wc -l)" = $ranks ]
done
finish
