# What of a text is text: reserved words, line ends, files that are no text, the run's own files, texts that moved.
. "$(dirname "$0")/lib.sh"

make_text 20000 >text
words=("${tiny[@]}" --level word)

# ---------------------------------------------------------- reserved words
sed 's/tree/<eos>/; s/gate/<unk>/' text >reserved
count_word() { tr ' ' '\n' <"$1" | grep -cFx -- "$2"; }
unk=$(count_word reserved '<unk>')
eos=$(count_word reserved '<eos>')
check "reserved words are read" quiet 0 "$unroll" train reserved "${words[@]}" -o reserved.h5
check "words that are <unk> are said" grep -q "^text: $unk of its words are <unk>: unknown tokens" err
check "words that are <eos> are said" grep -q "^text: $eos of its words are <eos>: a word" err
check "the word <eos> ends no line" quiet 0 "$unroll" eval --per-line reserved.h5 reserved
check "a row for each line" cmp <(tail -n +2 out | cut -f 1) <(seq "$(grep -c '' reserved)")
check "without them nothing is said" quiet 0 "$unroll" train text "${words[@]}" -o words.h5
check_not "of <unk> or <eos>" grep -q 'its words are' err

finish
