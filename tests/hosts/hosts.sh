#!/bin/bash
# Hosts on one machine: network namespaces on a bridge, with limited, slow or pulled cables.
#
#   hosts.sh make DIR N             hosts h1 .. hN (10.9.0.1 ..); what belongs to them is kept in the new folder DIR
#   hosts.sh exec DIR HOST CMD...   run CMD on HOST: own network, host name, /etc/hosts and /dev/shm
#   hosts.sh limit DIR RATE         every cable carries RATE each way: 1gbit, 100mbit; off: as fast as it goes
#   hosts.sh delay DIR US           every cable takes US microseconds each way, so that two hosts are twice that
#                                   apart; not while something runs; 0: none. DELAY names the program of delay.c
#   hosts.sh cable DIR HOST down    pull the cable of HOST; up: plug it in again
#   hosts.sh bytes DIR HOST         sent by HOST so far, without headers of Ethernet, IP and TCP
#   hosts.sh clean DIR              end what still runs on the hosts and remove them, and DIR
#
# For example, as root: hosts.sh make /tmp/n 2; hosts.sh limit /tmp/n 100mbit
#                       hosts.sh exec /tmp/n h1 mpirun --bind-to none --host h1,h2 unroll bench d2l; hosts.sh clean /tmp/n
#
# Nothing of the machine itself is changed: the bridge has a namespace of its own, and what `exec` mounts is seen by
# CMD alone. Several such networks may be there at once. mpirun is to be Open MPI's: `exec` tells it how to reach
# the other hosts, and that root may use it. Needs root, iproute2, and for `delay` /dev/net/tun.
set -eu

net=10.9.0
me=$(readlink -f "$0")
command=${1:-} dir=${2:-}

fail() {
  echo "hosts.sh: $*" >&2
  exit 1
}

# The namespaces have names of their own on the whole machine: those of DIR begin with $prefix.
own_prefix() {
  [ -f "$dir/prefix" ] || fail "$dir: no hosts were made there"
  prefix=$(cat "$dir/prefix")
  bridge=${prefix}bridge
}

spaces() { ip netns list | awk -v prefix="$prefix" 'index($1, prefix) == 1 { print $1 }'; }
hosts() { spaces | sed -n "s/^$prefix\(h[0-9]*\)\$/\1/p"; }

# plug_in HOST: both ends of its cable are there, eth0 on HOST and eth-HOST on the bridge
plug_in() {
  ip -n "$bridge" link set "eth-$1" master bridge up
  ip -n "$prefix$1" addr add "$net.${1#h}/24" dev eth0
  ip -n "$prefix$1" link set eth0 up
}

make_cable() {
  ip -n "$bridge" link add "eth-$1" type veth peer name eth0 netns "$prefix$1"
  plug_in "$1"
}

make() {
  local n=$1 h
  [ ! -e "$dir/prefix" ] || fail "$dir: hosts are there already"
  mkdir -p "$dir/tmp"
  dir=$(realpath "$dir")
  prefix=unroll$$-
  bridge=${prefix}bridge
  [ -z "$(spaces)" ] || fail "namespaces ${prefix}* are there already"
  echo "$prefix" >"$dir/prefix"
  ip netns add "$bridge"
  ip -n "$bridge" link add bridge type bridge
  ip -n "$bridge" link set bridge up
  echo "127.0.0.1 localhost" >"$dir/hosts"
  for h in $(seq -f h%g "$n"); do
    ip netns add "$prefix$h"
    ip -n "$prefix$h" link set lo up
    make_cable "$h"
    echo "$net.${h#h} $h" >>"$dir/hosts"
  done
  # What mpirun takes for ssh; another name, as it has options for `ssh`.
  cat >"$dir/enter" <<END
#!/bin/sh
h=\$1
shift
exec "$me" exec "$dir" "\$h" sh -c "\$*"
END
  chmod +x "$dir/enter"
}

exec_on() {
  local h=$1
  shift
  export OMPI_MCA_plm_rsh_agent=$dir/enter OMPI_MCA_oob_tcp_if_include=$net.0/24 OMPI_MCA_btl_tcp_if_include=$net.0/24
  export OMPI_MCA_orte_tmpdir_base=$dir/tmp
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # only root gets here
  # shellcheck disable=SC2016 # the inner shell expands
  exec ip netns exec "$prefix$h" unshare --uts sh -c \
    'hostname "$1" && mount --bind "$2" /etc/hosts && mount -t tmpfs tmpfs /dev/shm && shift 2 && exec "$@"' \
    sh "$h" "$dir/hosts" "$@"
}

# A token bucket at both ends, of a few milliseconds, which the timers of a busy machine may come late; a packet that
# would wait longer than the latency is dropped.
limit() {
  local rate=$1 burst=64kb h end
  case $rate in *gbit) burst=256kb ;; esac
  for h in $(hosts); do
    for end in "$prefix$h eth0" "$bridge eth-$h"; do
      # shellcheck disable=SC2086 # two words
      set -- $end
      ip netns exec "$1" tc qdisc del dev "$2" root 2>/dev/null || true
      [ "$rate" = off ] || ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$rate" burst "$burst" latency 200ms
    done
  done
}

# A link that is up again works up to a second later, and what waited for an answer of the other host until then may be
# told that there is no such host.
cable() {
  local h=$1 state=$2 end
  ip -n "$bridge" link set "eth-$h" "$state"
  [ "$state" = up ] || return 0
  for end in "$prefix$h eth0" "$bridge eth-$h"; do
    # shellcheck disable=SC2086 # two words
    set -- $end
    for _ in $(seq 100); do
      case $(ip netns exec "$1" cat "/sys/class/net/$2/operstate") in
      *down) sleep 0.05 ;;
      *) break ;; # up, or unknown: that of delay.c
      esac
    done
  done
  ip -n "$prefix$h" neigh flush dev eth0
}

# End the program that is the cable of a host, if there is one; its interfaces go with it.
end_delay() {
  local id
  [ -f "$dir/delay-$1.id" ] || return 1
  id=$(cat "$dir/delay-$1.id")
  rm "$dir/delay-$1.id"
  kill "$id" 2>/dev/null || true
  for _ in $(seq 100); do
    ip -n "$bridge" link show "eth-$1" >/dev/null 2>&1 || break
    sleep 0.05
  done
}

delay() {
  local us=$1 h
  for h in $(hosts); do
    end_delay "$h" || ip -n "$bridge" link del "eth-$h" # takes eth0 with it
    if [ "$us" = 0 ]; then
      make_cable "$h"
      continue
    fi
    ip netns exec "$bridge" "${DELAY:?is to name the program of delay.c}" "eth-$h" "/run/netns/$prefix$h" eth0 "$us" \
      </dev/null >"$dir/delay-$h.log" 2>&1 &
    echo $! >"$dir/delay-$h.id"
    for _ in $(seq 100); do
      grep -q ready "$dir/delay-$h.log" && break
      sleep 0.05
    done
    plug_in "$h"
  done
}

# A packet counts once, with one header, even if it is longer than a frame and cut up later.
bytes() {
  # shellcheck disable=SC2046 # two numbers
  set -- $(ip netns exec "$prefix$1" cat /sys/class/net/eth0/statistics/tx_bytes /sys/class/net/eth0/statistics/tx_packets)
  echo $(($1 - 66 * $2)) # 14 of Ethernet, 20 of IP, 32 of TCP with time stamps
}

clean() {
  local h space id
  for h in $(hosts); do end_delay "$h" || true; done
  for space in $(spaces); do
    for id in $(ip netns pids "$space"); do kill -KILL "$id" 2>/dev/null || true; done
    ip netns del "$space"
  done
  rm -rf "$dir"
}

[ $# -ge 2 ] || fail "see the head of $me"
[ "$command" = make ] || { own_prefix && dir=$(realpath "$dir"); }
shift 2
case $command in
make) make "$@" ;;
exec) exec_on "$@" ;;
limit) limit "$@" ;;
delay) delay "$@" ;;
cable) cable "$@" ;;
bytes) bytes "$@" ;;
clean) clean ;;
*) fail "$command: no such command" ;;
esac
