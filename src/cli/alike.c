/*
 * Were all ranks started alike? Whoever starts them may give each its own options (mpirun with a colon, srun
 * --multi-prog, a script around the program), and every rank believes its own: some would train what the file
 * does not say, some would wait for ever for messages that nobody sends.
 *
 * What a rank was started with is a list of names and values, the same for the same start. Rank 0 shows its list
 * to all, and each looks for the first difference from its own.
 */
#include "base/build.h"
#include "base/check.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "comm/comm.h"

#include <inttypes.h>
#include <string.h>

/* | name \0 value \0 | name \0 value \0 | ... */
struct items {
  char *text;
  size_t n, room; /* [bytes] */
};

static unroll_status put_word(struct items *items, const char *word)
{
  unroll_status st = UNROLL_OK;
  const size_t n = strlen(word) + 1;

  if (items->n + n > items->room) {
    const size_t room = 2 * (items->room + n);
    UNROLL_TRY(
        memory_resize(items->room, room, 1, "what this rank was started with", &items->text));
    items->room = room;
  }
  memcpy(items->text + items->n, word, n);
  items->n += n;

cleanup:
  return st;
}

static unroll_status put_item(struct items *items, const char *name, const char *value)
{
  unroll_status st = put_word(items, name);
  return st == UNROLL_OK ? put_word(items, value) : st;
}

/* An option that was not given counts as another than one given with its default: --resume reads that from the file. */
static unroll_status put_option(struct items *items, const cli_call *call,
                                const option_table *table, size_t k)
{
  char name[64], value[UNROLL_CONFIG_TEXT + 32];
  const bool given = call->given[k];

  (void)snprintf(name, sizeof name, "--%s", table->rows[k].name);
  options_format(&table->rows[k], call->settings, UNROLL_CONFIG_TEXT, value);
  if (value[0] == '\0') { (void)snprintf(value, sizeof value, "none"); }
  if (!given) { (void)strcat(value, " (not given)"); }
  return put_item(items, name, value);
}

static unroll_status list_items(const cli_command *command, const cli_call *call,
                                struct items *items)
{
  unroll_status st = UNROLL_OK;
  char name[64];

  UNROLL_TRY(put_item(items, "version", UNROLL_VERSION));
  UNROLL_TRY(put_item(items, "revision", build_revision));
  UNROLL_TRY(put_item(items, "command", command->usage.command));
  for (size_t k = 0; k < command->table->n_rows; ++k) {
    UNROLL_TRY(put_option(items, call, command->table, k));
  }
  for (size_t i = 0; i < call->n_operands; ++i) {
    (void)snprintf(name, sizeof name, "operand %zu", i + 1);
    UNROLL_TRY(put_item(items, name, call->operands[i]));
  }

cleanup:
  return st;
}

/* The word at *at, which moves on to the next one; NULL at the end. */
static const char *take_word(const struct items *items, size_t *at)
{
  const char *word = *at < items->n ? items->text + *at : NULL;
  if (word != NULL) { *at += strlen(word) + 1; }
  return word;
}

/* `first` is the list of rank 0. Two lists differ in length only by their operands, which are last. */
static unroll_status compare_items(const struct items *first, const struct items *mine, int rank)
{
  size_t a = 0, b = 0;
  for (;;) {
    const char *name = take_word(first, &a), *other = take_word(mine, &b);
    const char *value = take_word(first, &a), *own = take_word(mine, &b);
    if (name == NULL && other == NULL) { return UNROLL_OK; }
    if (name == NULL || other == NULL || strcmp(value, own) != 0) {
      return unroll_fail(UNROLL_ERR_ARG,
                         "%s: rank 0 was started with %s, rank %d with %s; all ranks of a run need "
                         "the same program, command and options",
                         name != NULL ? name : other, value != NULL ? value : "none", rank,
                         own != NULL ? own : "none");
    }
  }
}

unroll_status alike_check(unroll_comm *comm, int rank, unroll_status read,
                          const cli_command *command, const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  struct items mine = {0}, first = {0};

  if (read != UNROLL_OK && rank != 0) {
    char line[4096];
    (void)snprintf(line, sizeof line, "%s", unroll_message());
    read = unroll_fail(read, "rank %d, not rank 0: %.4000s", rank, line);
  }
  UNROLL_TRY(comm_agree(comm, read));
  UNROLL_TRY(comm_agree(comm, list_items(command, call, &mine)));
  first.n = mine.n;
  UNROLL_TRY(comm_broadcast(comm, &first.n, sizeof first.n, 0));
  UNROLL_TRY(comm_agree(comm, memory_new(first.n, 1, "what rank 0 was started with", &first.text)));
  if (unroll_comm_rank(comm) == 0) { memcpy(first.text, mine.text, first.n); }
  UNROLL_TRY(comm_broadcast(comm, first.text, first.n, 0));
  UNROLL_TRY(comm_agree(comm, compare_items(&first, &mine, rank)));

cleanup:
  memory_free(&first.text);
  memory_free(&mine.text);
  return st;
}
