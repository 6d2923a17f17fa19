# Long memory: what truncated back-propagation cannot learn and full back-propagation does.
#
# Each line is a symbol, A or B by chance, 12 letters that are the same in every line, and the symbol again; with
# the line end 15 tokens. All but the two symbols follow from the letter before. So, in nats per token,
#
#   ln 2 / 15      who remembers the symbol: only the first of a line cannot be known
#   2 ln 2 / 15    who does not
#
# In a window of 12 steps or fewer that begins with the zero state nothing before the second symbol tells it: the
# first one lies 13 tokens back. So no weights do better than 2 ln 2 / 15, less what the symbols of this text
# are apart from fair (a few per cent with 1000 lines).
. "$(dirname "$0")/lib.sh"

# lines SEED COUNT
lines() {
  awk -v x="$1" -v n="$2" 'BEGIN {
    for (; n > 0; --n) {
      x = (x * 16807) % 2147483647
      s = x % 1000 < 500 ? "A" : "B"
      print s "abcdefghijkl" s
    }
  }'
}
lines 1 1000 >train.txt
lines 7 200 >test.txt

train() { OMP_NUM_THREADS=2 "$unroll" train train.txt --overwrite --valid-fraction 0 --hidden 32 --batch 16 \
  --activation relu --init orthogonal --lr 2e-3 "$@"; }
# in_nats VALUE CONDITION: `v` is the value, `ln2` that of a symbol
in_nats() { awk -v v="$1" "BEGIN { ln2 = log(2); exit !($2) }"; }
loss_of() { "$unroll" eval "$1" test.txt --json | awk -F'[:,]' '/"loss"/ { print $2 }'; }

train -o full.h5 --bptt full --sequences line --epochs 40 >log 2>&1 || fail "full: $(tail -1 log)"
full=$(loss_of full.h5)
check "full gradients remember the symbol: $full nats" in_nats "$full" 'v < 1.1 * ln2 / 15 && v > 0.9 * ln2 / 15'

# A report for each epoch: every token of the text is then in it about once.
train -o truncated.h5 --partition random --steps 10 --epochs 40 --log-every 93 >log 2>&1 || fail "truncated: $(tail -1 log)"
least=$(awk '/^train/ && (least == "" || $7 < least) { least = $7 } END { print least }' log)
check "windows of 10 steps cannot: $least nats" in_nats "$least" 'v > 0.95 * 2 * ln2 / 15'
check "but learn all else: $least nats" in_nats "$least" 'v < 1.3 * 2 * ln2 / 15'
check "every epoch was reported" [ "$(grep -c '^train' log)" = 40 ]
finish
