#!/bin/bash
# What the tests on several hosts share; sourced by bash with the words SOURCE PROGRAM DELAY of the test.
# Hosts are network namespaces (hosts.sh); the test ends with `finish`, as a story does.
. "$(dirname "${BASH_SOURCE[0]}")/../story/lib.sh" "$@"

export DELAY=$3 OMP_NUM_THREADS=1
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM # hosts.sh says so itself
hosts_tool=$source_dir/tests/hosts/hosts.sh
network=$work/network

[ "$(id -u)" = 0 ] || skip "hosts are network namespaces, and only root can make them"
export PATH=$PATH:/usr/sbin:/sbin
for tool in ip tc unshare; do
  [ -n "$(command -v $tool)" ] || skip "hosts are network namespaces: no $tool (jobs/test.sh installs iproute2)"
done
if ! ip netns add "unroll$$-probe" || ! ip netns exec "unroll$$-probe" true; then
  skip "this container may not make network namespaces"
fi
ip netns del "unroll$$-probe"
mpirun --version 2>/dev/null | grep -q -e 'Open MPI' -e OpenRTE || skip "hosts.sh knows how to start ranks with Open MPI's mpirun alone"
python=$(find_python) || skip "no python3 with h5py and NumPy"

trap '[ ! -e "$network" ] || "$hosts_tool" clean "$network"; rm -rf "$work"' EXIT

# net COMMAND [WORD...]: of hosts.sh
net() {
  local command=$1
  shift
  "$hosts_tool" "$command" "$network" "$@"
}

# on HOSTS WORD...: mpirun on h1, with ranks on these hosts: h1:2,h2:2
on() {
  local where=$1
  shift
  timeout 120 "$hosts_tool" exec "$network" h1 mpirun --bind-to none --host "$where" "$@"
}
