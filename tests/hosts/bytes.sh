#!/bin/bash
# Bytes that a host sends for the sum of a gradient, by the counters of its interface: at most 5% over the optimum,
# 2 n (H - 1) / H with H hosts and a gradient of n bytes.
#
#   bytes.sh SOURCE UNROLL DELAY
# shellcheck disable=SC2317 # functions are called by check
. "$(dirname "$0")/lib.sh" "$@"
make_text 40000 >text
options=(text --hidden 384 --layers 2 --batch 24 --shards 24 --steps 4 --valid-fraction 0 --log-every 1000)
check "four hosts" net make 4

# sent HOSTS STEPS FILE: a run of so many steps; by each host, and the number of parameters, to FILE
sent() {
  local where=$1 steps=$2 file=$3 h
  local -A before=()
  for h in h1 h2 h3 h4; do before[$h]=$(net bytes "$h"); done
  rm -f run.*
  quiet 0 on "$where" "$unroll" train "${options[@]}" --max-steps "$steps" -o run.h5 || return
  for h in h1 h2 h3 h4; do echo "$h $(($(net bytes "$h") - before[$h]))"; done >"$file"
  sed -n 's/^model: \([0-9]*\) parameters$/parameters \1/p' err >>"$file"
}

# optimal NUMBER WHAT HOSTS: on so many hosts; the difference of a long and a short run is what the steps between them sent
optimal() {
  local number=$1 what="$1 hosts of $2" where=$3
  check "$what: a short run" sent "$where" 5 short
  check "$what: a long run" sent "$where" 25 long
  check "$what" "$python" - short long "$number" <<'EOF2'
import sys
short, long = (dict(line.split() for line in open(name)) for name in sys.argv[1:3])
hosts = [h for h in ("h1", "h2", "h3", "h4") if int(long[h]) > 1000000]
n, H = 4 * int(long["parameters"]), int(sys.argv[3])
optimum = 2 * n * (H - 1) / H
each = {h: (int(long[h]) - int(short[h])) / 20 for h in hosts}
print(f"{H} hosts, gradient of {n} bytes, optimum {optimum / n:.3f} n, sent per step:",
      ", ".join(f"{h} {b / n:.3f} n" for h, b in each.items()))
sys.exit(0 if len(hosts) == H and all(0.9 * optimum < b <= 1.05 * optimum for b in each.values()) else 1)
EOF2
}

optimal 2 "1 rank" h1,h2
optimal 4 "1 rank" h1,h2,h3,h4
optimal 2 "2 ranks" h1:2,h2:2
optimal 4 "2 ranks" h1:2,h2:2,h3:2,h4:2
optimal 3 "1 rank" h1,h2,h3

finish
