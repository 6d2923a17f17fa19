#!/bin/bash
# train --config: options from a file of lines or from a run file; the command line wins, and what is wrong is named.
#
#   config.sh SOURCE UNROLL
. "$(dirname "$0")/lib.sh" "$@"
python=$(find_python) || skip "no python3 with h5py"
make_text 20000 >text
make_text 9000 >other

train() { quiet "$1" mpirun -n "$2" "$unroll" train "${@:3}"; }
# config_of FILE KEY...
config_of() {
  "$python" -c 'import sys, h5py; c = h5py.File(sys.argv[1], "r")["config"].attrs; print(*(c[k].decode() if hasattr(c[k], "decode") else c[k] for k in sys.argv[2:]))' "$@"
}
# has FILE VALUES KEY...
has() { check "$1 has $2: $(config_of "$1" "${@:3}")" [ "$(config_of "$1" "${@:3}")" = "$2" ]; }

# ---- lines

# A byte order mark, CRLF, white space, comments, a value with spaces, no end of the last line.
printf '\xef\xbb\xbf# what we use\r\n\r\nhidden=12\t# units\r\n  cell  =  gru \r\nlowercase = yes\r\nsteps = 10\r\nepochs = 2\r\nvalid = the#other text' >lines
cp other 'the#other text'
check "from lines" train 0 1 --config lines text -o lines.h5
has lines.h5 "12 gru 1 10 2 the#other text lines" hidden cell lowercase steps epochs valid config
check "as typed" train 0 1 --hidden 12 --cell gru --lowercase --steps 10 --epochs 2 --valid 'the#other text' text -o typed.h5
check "the same" same_run lines.h5 typed.h5
check "on two ranks, the command line wins" train 0 2 --hidden 16 text --config lines -o wins.h5 --max-steps 3
has wins.h5 "16 gru 10" hidden cell steps
check "the same command goes on" train 0 1 --hidden 16 text --config lines -o wins.h5 --max-steps 6 --resume
check "a line counts as typed" train 2 1 --hidden 16 --cell lstm text --config lines -o wins.h5 --resume
check "in what a run refuses: $(cat err)" grep -q -- '--cell lstm: the run to resume has gru' err
echo 'hidden = 20' >changed
check "also a line" train 2 1 text --config changed -o wins.h5 --resume
check "is refused so" grep -q -- "--hidden 20: the run to resume has 16" err
printf 'momentum = 0.5\n' >needs
check "an option without effect" train 2 1 text --config needs -o no.h5
check "is refused" grep -q -- '--momentum needs --optimizer momentum' err

# refuses WORDS LINES: with the file, and where there is one the number of the line
refuses() {
  printf "$2" >wrong
  check "refused: $2" quiet 2 "$unroll" train --config wrong text -o no.h5
  check "in these words: $(cat err)" grep -q "^unroll: error: wrong: $1" err
  check "nothing is written" [ ! -e no.h5 ]
}
refuses 'line 3: there is no option --hiden; the nearest is --hidden' '# one\n\nhiden = 3\n'
refuses 'line 1: there is no option --learning_rate; here it is --lr' 'learning_rate = 1e-3'
refuses 'line 2: lr is set twice, before in line 1' 'lr = 1\nlr = 1\n'
refuses 'line 1: --lr "fast" is not a number' 'lr = fast\n'
refuses 'line 1: --tied maybe is neither yes nor no' 'tied = maybe\n'
refuses 'line 1: "lr 3" is not `key = value`' 'lr 3\n'
refuses 'line 1: a file of options names no other' 'config = wrong\n'
refuses "is no text" "lr\\0 = 1\\n"
for word in nosuch . /dev/null; do
  check "refused: $word" quiet 2 "$unroll" train --config $word text -o no.h5
  check "named: $(cat err)" grep -qF "unroll: error: $word: cannot " err
done
head -c 1100000 /dev/zero >large
check "a file of a megabyte" quiet 2 "$unroll" train --config large text
check "is refused unread" grep -q 'large: has 1100000 bytes; legal is' err
check "it is read only once" quiet 2 "$unroll" train --config lines --config lines text
mkdir 0 1
echo 'hidden = 8' >0/lines
echo 'hidden = 9' >1/lines
check "ranks that read different lines" quiet 2 mpirun -n 1 --wdir 0 "$unroll" train --config lines ../text -o no.h5 : \
  -n 1 --wdir 1 "$unroll" train --config lines ../text -o no.h5
check "are told" grep -q -- '--hidden: rank 0 was started with 8, rank 1 with 9' err

# ---- a preset: below the file, which is below the command line

printf 'preset = char\nhidden = 12\ncell = rnn\n' >preset
check "a preset" train 0 1 --config preset --cell lstm --steps 10 --batch 16 text -o preset.h5 --max-steps 3
has preset.h5 "char lstm 12 0.3" preset cell hidden dropout
check "is told: $(cat err)" grep -q '^preset char: level char, cell lstm, hidden 12, dropout 0.3$' err
check "is shown" quiet 0 "$unroll" info preset.h5
check "as it is" grep -q '  Preset:  preset char' out
check "the same command goes on" train 0 2 --config preset --cell lstm --steps 10 --batch 16 text -o preset.h5 --max-steps 6 --resume
check "to what all in words does" train 0 1 --preset char --cell lstm --hidden 12 --steps 10 --batch 16 text -o one.h5 --max-steps 6
check "the same" same_run preset.h5 one.h5
check "another preset" train 2 1 --preset word -o preset.h5 --resume
check "is refused" grep -q -- '--preset word: the run to resume has char' err
check "beside a run" train 2 1 --preset word --config preset.h5 text -o no.h5
check "it is refused" grep -q -- '--preset: the run of --config preset.h5 has all options' err

# ---- a run

check "from a run" train 0 2 --config lines.h5 text -o again.h5
check "the same run" same_run lines.h5 again.h5
has again.h5 "lines.h5" config
check "with one option changed" train 0 1 --config lines.h5 text -o rate.h5 --lr 1e-3
has rate.h5 "12 gru 1 10 2 0.001" hidden cell lowercase steps epochs lr
check "on another text" train 0 1 --config lines.h5 other -o other.h5 --valid text
has other.h5 "$(config_of lines.h5 batch epochs shards) text" batch epochs shards valid
check "what was derived is derived again" train 0 1 --config lines.h5 text -o few.h5 --batch 12 --steps 5
has few.h5 "12 4 5 5" batch shards steps stride
check "a part of the text instead of a file" train 0 1 --config lines.h5 text -o part.h5 --valid-fraction 0.2
has part.h5 " 0.2" valid valid_fraction
check "the same command goes on" train 0 1 --config lines.h5 text -o part.h5 --valid-fraction 0.2 --resume
cp lines.h5 text.h5
printf x | dd of=text.h5 bs=1 seek=3000 conv=notrunc status=none
check "a damaged run" quiet 2 "$unroll" train --config text.h5 text -o no.h5
check "is named: $(cat err)" grep -q '^unroll: error: text.h5: is damaged' err
finish
