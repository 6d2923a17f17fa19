# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2317 # sourced; arguments of start_slurm are optional
# What the tests against a real Slurm share; sourced by bash with the words SOURCE PROGRAM of the test itself.
#
# start_slurm brings up a controller and four nodes of this machine, all private: a folder, ports and host names
# of their own, so that several may run at once. Each node is a host to its jobs: it has its own host name,
# processes and /dev/shm. That needs root. Whatever way the test ends, the kernel ends all of it.
. "$(dirname "${BASH_SOURCE[0]}")/../story/lib.sh"

# The scripts are tried as users submit them: none of what helps other tests on few cores, but that ranks yield.
unset OMP_NUM_THREADS OMPI_MCA_rmaps_base_oversubscribe OMPI_MCA_hwloc_base_binding_policy

nodes=4
slurm_pids=() # the controller, then the nodes; each dies with this shell

# How a daemon is started that must not outlive the test, even if that is killed.
die_with_us=(setpriv --pdeathsig KILL)

need_slurm() {
  local tool
  for tool in slurmctld slurmd sbatch scontrol; do
    [ -n "$(PATH=$PATH:/usr/sbin:/sbin command -v $tool)" ] || skip "no $tool: Slurm is not installed (jobs/test.sh installs it)"
  done
  [ "$(id -u)" = 0 ] || skip "not root: the nodes of a private Slurm need namespaces"
  unshare --uts --mount --pid --fork --mount-proc true 2>/dev/null || skip "no namespaces here: unshare is not permitted"
  mpirun --version 2>/dev/null | grep -q -e 'Open MPI' -e OpenRTE || skip "the scripts start Open MPI's programs, this one is of another MPI"
  python=$(find_python) || skip "no python3 with h5py and NumPy"
  export PATH=$PATH:/usr/sbin:/sbin
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of five ports that nobody listens on, below those that the kernel gives to clients.
free_ports() {
  local base port
  while :; do
    base=$((10000 + RANDOM % 4400 * 5))
    for ((port = base; port <= base + nodes; port++)); do is_free $port || continue 2; done
    echo $base
    return
  done
}

# write_conf PORT LINE...: slurm.conf, with further lines
write_conf() {
  local port=$1 k
  shift
  cat <<CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
FirstJobId=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# a requeued job may start again when the credential of its first life has expired
AuthInfo=cred_expire=5
SlurmctldPidFile=$slurm/slurmctld.pid
SlurmdPidFile=$slurm/%n/pid
SlurmctldLogFile=$slurm/slurmctld.log
SlurmdLogFile=$slurm/%n/log
StateSaveLocation=$slurm/state
SlurmdSpoolDir=$slurm/%n/spool
# the folders of mpi/pmix: the nodes of one machine must not share them
TmpFS=$slurm/%n/tmp
MailProg=/bin/true
# an ordinary site without cgroups, task affinity and accounting
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
EnforcePartLimits=ALL
# quick
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
KillWait=30
MinJobAge=3600
SlurmdTimeout=10
MessageTimeout=3
SlurmctldTimeout=60
CONF
  for ((k = 1; k <= nodes; k++)); do
    # Not the number of cores there are: mpirun would bind the ranks of all nodes to the same ones.
    echo "NodeName=$(node $k) NodeHostname=$(node $k) NodeAddr=127.0.0.1 Port=$((port + k)) CPUs=$(($(nproc) + 6)) RealMemory=4000"
  done
  printf '%s\n' "$@"
}

# node K: the name of a node. No other Slurm on this machine has it: Open MPI names files by host and job.
node() { echo "u${slurm_port}n$1"; }

start_node() {
  mkdir -p "$slurm/$1/spool" "$slurm/$1/tmp"
  # shellcheck disable=SC2016 # for the inner shell
  "${die_with_us[@]}" unshare --uts --mount --pid --fork --mount-proc --kill-child bash -c '
    hostname "$1" && mount -t tmpfs tmpfs /dev/shm && {
      slurmd -D -f "$SLURM_CONF" -N "$1" &
      wait
    }' node "$1" >"$slurm/$1/out" 2>&1 &
  slurm_pids+=($!)
  disown
}

# start_slurm [LINE...]: of slurm.conf, for example another partition
start_slurm() {
  local k try
  slurm=$work/slurm
  export SLURM_CONF=$slurm/slurm.conf TMPDIR=$slurm/tmp
  # The hosts of this machine talk over its loopback, which Open MPI leaves out unless told.
  export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
  for try in 1 2 3; do
    slurm_port=$(free_ports)
    rm -rf "$slurm"
    mkdir -p "$slurm/state" "$slurm/tmp"
    write_conf "$slurm_port" "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10" "$@" >"$SLURM_CONF"
    echo CgroupPlugin=cgroup/v1 >"$slurm/cgroup.conf" # read, though nothing uses cgroups
    "${die_with_us[@]}" slurmctld -D -f "$SLURM_CONF" >"$slurm/out" 2>&1 &
    slurm_pids=($!)
    disown # bash need not say that it was killed
    for ((k = 1; k <= nodes; k++)); do start_node "$(node $k)"; done
    for ((k = 0; k < 100; k++)); do
      if [ "$(timeout 5 sinfo -h -N -p main -o %t 2>/dev/null | grep -c '^idle$')" = $nodes ]; then return; fi
      sleep 0.1
    done
    echo "Slurm did not start at port $slurm_port (try $try):"
    tail -n 5 "$slurm"/out "$slurm"/*.log "$slurm"/*/out "$slurm"/*/log
    stop_slurm
  done
  echo "no Slurm"
  exit 1
}

# on_node K NAME: the processes of node K whose program is called so, as this machine numbers them; K counts from 1
on_node() {
  local space
  space=$(ps -o pidns= --ppid "${slurm_pids[$1]}" | tr -d ' ')
  ps -e -o pid=,pidns=,comm= | awk -v space="$space" -v name="$2" '$2 == space && $3 ~ name { print $1 }'
}

stop_slurm() {
  local pid
  for pid in "${slurm_pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  slurm_pids=()
}
trap 'stop_slurm; rm -rf "$work"' EXIT

# ------------------------------------------------------------------------- jobs

# Two hosts with two ranks each. The CPUs of a host are not as many as this machine has cores: mpirun would take the
# machine for all theirs, and bind the ranks of both to the same cores.
cpus=1
if [ "$(nproc)" = 2 ]; then cpus=2; fi
two_hosts=(--nodes=2 --ntasks-per-node=2 --cpus-per-task="$cpus" --mem-per-cpu=50)

# The model of the jobs. A job goes on without end; one that finds a checkpoint waits until the file `goal` of its folder
# says at which step to end (how_far, below). So a test can stop a job wherever it likes, and then say where it ends.
model=(--hidden 48 --batch 16 --steps 20 --epochs 1000 --warmup 10 --log-every 3 --valid-every 25)
# edit FOLDER SCRIPT SED...: a copy of jobs/slurm/SCRIPT in a new folder with a text, edited as a user would
edit() {
  local folder=$1 script=$2
  shift 2
  mkdir -p "$folder"
  ln -s "$work/corpus.txt" "$folder/corpus.txt"
  sed -e "s/^options=.*/options=(${model[*]} --max-steps \$(how_far))/" "$@" "$source_dir/jobs/slurm/$script" >"$folder/$script"
}

declare -A job # number of the job of a folder

# submit FOLDER SCRIPT OPTION...: of sbatch, which change what the script says of itself
submit() {
  local folder=$1 script=$2
  shift 2
  job[$folder]=$(sbatch --parsable --chdir="$folder" --output=out "$@" "$folder/$script") || exit 1
}

# field FOLDER NAME: of its job, as scontrol has it
field() { scontrol -o show job "${job[$1]}" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }

# await SECONDS COMMAND...: until it succeeds
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if [ $SECONDS -ge $end ]; then
      echo "in vain: $*"
      return 1
    fi
    sleep 0.1
  done
}

is() { case $(field "$1" JobState) in "$2") true ;; *) false ;; esac }
# No state: the controller did not answer.
has_ended() { case $(field "$1" JobState) in '' | PENDING | RUNNING | COMPLETING | REQUEUED | SUSPENDED) false ;; *) true ;; esac }
has_restarted() { [ "$(field "$1" Restarts)" = "$2" ]; }
has_saved() { [ -f "$1/run.h5" ]; }

# says FOLDER PATTERN: a line of what its job says, within 20 seconds
says() { await 20 grep -q "$2" "$1/out" || { show "$1"; return 1; }; }
has_reports() { [ -f "$1/run.jsonl" ] && [ "$(wc -l <"$1/run.jsonl")" -ge 5 ]; }

# reports FOLDER: its job has started and written some
reports() { await 100 has_reports "$1" || { show "$1"; return 1; }; }

# ends FOLDER STATE EXIT: its job ends like this, for example COMPLETED 0:0
ends() {
  await 150 has_ended "$1" && [ "$(field "$1" JobState) $(field "$1" ExitCode)" = "$2 $3" ] && return
  show "$1"
  return 1
}

show() {
  echo "job of $1: $(field "$1" JobState), exit $(field "$1" ExitCode), restarts $(field "$1" Restarts)"
  if [ "$(wc -l <"$1/out")" -le 80 ]; then cat "$1/out"; else head -n 40 "$1/out" && echo ... && tail -n 40 "$1/out"; fi
  grep -h "[^0-9]${job[$1]}[^0-9]" "$slurm/slurmctld.log" "$slurm"/*/log | tail -n 40
}

# further FOLDER [RUN]: the next life of its job is to go 40 steps further, and to end
further() { echo $(($(step_of "$1/${2:-run.h5}") + 40)) >"$1/goal.new" && mv "$1/goal.new" "$1/goal"; }

# goes_back FOLDER [RESTARTS]: its job went back into the queue, for the first time unless told; this life is to go 40 steps further
goes_back() {
  await 100 has_restarted "$1" "${2:-1}" && further "$1" && return
  show "$1"
  return 1
}

# same_bits FOLDER [RUN]: its run is that of one rank that never stopped
same_bits() {
  local run=$1/${2:-run.h5}
  "$unroll" train corpus.txt --overwrite -o whole.h5 "${model[@]}" --max-steps "$(step_of "$run")" >whole 2>&1 &&
    same_run whole.h5 "$run"
}

mkdir bin
ln -s "$unroll" bin/unroll
cat >bin/how_far <<'SCRIPT'
#!/bin/bash
if [ -f "${1:-run.h5}" ]; then until cat goal 2>/dev/null; do sleep 0.1; done; else echo 0; fi
SCRIPT
chmod +x bin/how_far
export PATH=$work/bin:$PATH
make_text 40000 >corpus.txt
