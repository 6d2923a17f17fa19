#!/bin/bash
# Ranks on several hosts, however many, however placed, however slow the network: the bits of one rank.
#
#   bits.sh SOURCE UNROLL DELAY [all]    all: what takes minutes, too
# shellcheck disable=SC2034,SC2317 # options are read by name, functions called by check
. "$(dirname "$0")/lib.sh" "$@"
make_text 40000 >text

# Batches that 1, 2, 3, 4, 6 and 8 ranks can share. Words send some rows of the input table, characters all of it.
chars=(text --hidden 67 --layers 2 --batch 24 --shards 24 --steps 16 --max-steps 12 --log-every 5 --valid-every 6)
words=(text --level word --hidden 50 --batch 24 --shards 24 --steps 5 --max-steps 12 --log-every 5 --valid-every 6
  --optimizer sgd --lr 0.5)
check "characters, one rank" quiet 0 "$unroll" train "${chars[@]}" -o chars.h5
check "words, one rank" quiet 0 "$unroll" train "${words[@]}" -o words.h5

all=${4:-}

# as_one WHAT FILE HOSTS WORD...: trained on these hosts it is what one rank made; FILE is chars or words
as_one() {
  local what=$1 file=$2 where=$3
  local -n options=$file
  shift 3
  rm -f run.*
  check "$what, $file" quiet 0 on "$where" "$@" "$unroll" train "${options[@]}" -o run.h5
  check "$what, $file: the bits of one rank" same_run "$file.h5" run.h5
}

# repeats WHAT HOSTS WORD...: other numbers of ranks than powers of two have bits of their own, always the same
repeats() {
  local what=$1 where=$2 file
  shift 2
  for file in first second; do
    rm -f "$file".*
    check "$what" quiet 0 on "$where" "$@" "$unroll" train "${chars[@]}" -o "$file.h5"
  done
  check "$what: the same bits again" same_run first.h5 second.h5
}

two=h1,h2 four=h1:2,h2:2,h3:2,h4:2
check "four hosts" net make 4
as_one "2 hosts of 1 rank" chars $two
as_one "4 hosts of 2 ranks" chars $four
check "and the banner knows the hosts" grep -q '^8 ranks .* 4 hosts: h1,h2,h3,h4$' err
as_one "4 hosts of 2 ranks" words $four
as_one "4 hosts of 2 ranks, dealt out in turns" chars $four --map-by node
repeats "3 hosts of 1 rank" h1,h2,h3
if [ -n "$all" ]; then
  as_one "2 hosts of 1 rank" words $two
  as_one "2 hosts of 2 ranks" chars h1:2,h2:2
  as_one "2 hosts of 4 ranks, dealt out in turns" words h1:4,h2:4 --map-by node
  as_one "3 hosts of 4, 2 and 2 ranks" chars h1:4,h2:2,h3:2
  repeats "3 hosts of 2 ranks" h1:2,h2:2,h3:2
  repeats "2 hosts of 3 ranks, dealt out in turns" h1:3,h2:3 --map-by node
fi

for rate in 1gbit 100mbit; do
  check "links of $rate" net limit $rate
  as_one "4 hosts of 2 ranks at $rate" chars $four
  if [ -n "$all" ]; then as_one "4 hosts of 2 ranks at $rate" words $four; fi
done
net limit off

# A frame takes 0.5 ms to the bridge and 0.5 ms from there: a port that nobody listens at answers 2 ms later; the first time
# twice that, as h1 has to ask for the address of h2.
answer() {
  net exec h1 "$python" -c 'import socket, time
for _ in range(2):
    s, start = socket.socket(), time.monotonic()
    s.settimeout(10)
    try: s.connect(("10.9.0.2", 9))
    except ConnectionRefusedError: pass
print(int(1e6 * (time.monotonic() - start)))'
}
check "links of 1 ms" net delay 500
check "an answer takes 2 ms" [ "$(answer)" -ge 2000 ]
as_one "4 hosts of 2 ranks at 1 ms" chars $four
if [ -n "$all" ]; then as_one "2 hosts of 2 ranks at 1 ms" words h1:2,h2:2; fi

finish
