#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "net/params.h"
#include "runfile/runfile.h"

#include <string.h>

/* What fixes the sizes of all that follows, in one message. Ranks run the same program, so a struct
 * means the same everywhere. */
typedef struct parcel {
  unroll_config config;
  run_state state; /* its pointer means nothing to others */
  unroll_shape shape;
  size_t n_moments;
  size_t token_bytes; /* all names with their zeros */
} parcel;

static void pack(const run *r, parcel *p)
{
  p->config = r->config;
  p->state = r->state;
  p->state.hidden = NULL;
  p->shape = r->params->shape;
  p->n_moments = r->n_moments;
  for (size_t v = 0; v < p->shape.V; ++v) {
    p->token_bytes += strlen(unroll_vocab_token_view(r->vocab, v)) + 1;
  }
}

/* A run of the right sizes, all values zero. */
static unroll_status prepare(const parcel *p, run **out)
{
  unroll_status st = UNROLL_OK;
  run *r = NULL;

  UNROLL_TRY(run_new(&r));
  r->config = p->config;
  r->state = p->state;
  UNROLL_TRY(unroll_params_new(&p->shape, &r->params));
  r->n_moments = p->n_moments;
  for (size_t k = 0; k < r->n_moments; ++k) {
    UNROLL_TRY(
        memory_new(r->params->n, sizeof(unroll_real), "the optimizer's moments", &r->moments[k]));
  }
  *out = r;
  r = NULL;

cleanup:
  run_free(&r);
  return st;
}

/* Names and counts of the tokens, on rank 0 from the vocabulary; elsewhere only room for them. */
typedef struct token_list {
  char *names;        /* (token_bytes) one after the other */
  const char **token; /* (V) into names */
  uint64_t *count;    /* (V) */
} token_list;

static unroll_status token_list_new(const parcel *p, const unroll_vocab *vocab, token_list *list)
{
  unroll_status st = UNROLL_OK;
  char *at = NULL;

  UNROLL_TRY(memory_new(p->token_bytes, 1, "tokens", &list->names));
  UNROLL_TRY(memory_new(p->shape.V, sizeof *list->token, "tokens", &list->token));
  UNROLL_TRY(memory_new(p->shape.V, sizeof *list->count, "counts of tokens", &list->count));
  at = list->names;
  for (size_t v = 0; vocab != NULL && v < p->shape.V; ++v) {
    const char *name = unroll_vocab_token_view(vocab, v);
    memcpy(at, name, strlen(name) + 1);
    at += strlen(name) + 1;
    list->count[v] = unroll_vocab_count(vocab, v);
  }

cleanup:
  return st;
}

static unroll_status token_list_to_vocab(const parcel *p, token_list *list, unroll_vocab **vocab)
{
  const unroll_text_rules rules = {p->config.level, p->config.lowercase, p->config.letters};
  const char *at = list->names;

  for (size_t v = 0; v < p->shape.V; ++v) {
    list->token[v] = at;
    at += strlen(at) + 1;
  }
  return unroll_vocab_new(rules, p->shape.V, list->token, list->count, vocab);
}

static void token_list_free(token_list *list)
{
  memory_free(&list->count);
  memory_free(&list->token);
  memory_free(&list->names);
}

/* Weights that are not finite are of no use to anybody but who looks at the file. */
static unroll_status read_finite(const char *path, run **out)
{
  unroll_status st = runfile_read(path, out);
  if (st == UNROLL_OK && !params_are_finite((*out)->params)) {
    st =
        unroll_fail(UNROLL_ERR_INPUT,
                    "%s: its weights are not finite, as the run has diverged; its best model or an "
                    "older checkpoint (train --keep) may be, or train again with a lower --lr",
                    path);
  }
  return st;
}

unroll_status runfile_load(unroll_comm *comm, const char *path, run **out)
{
  unroll_status st = UNROLL_OK;
  bool first = unroll_comm_rank(comm) == 0;
  run *r = NULL;
  parcel p = {0};
  token_list list = {0};

  UNROLL_TRY(comm_agree(comm, first ? read_finite(path, &r) : UNROLL_OK));
  if (first) { pack(r, &p); }
  UNROLL_TRY(comm_broadcast(comm, &p, sizeof p, 0));

  st = first ? UNROLL_OK : prepare(&p, &r);
  if (st == UNROLL_OK) { st = token_list_new(&p, first ? r->vocab : NULL, &list); }
  UNROLL_TRY(comm_agree(comm, st)); /* before anybody sends into memory that is not there */

  UNROLL_TRY(comm_broadcast(comm, list.names, p.token_bytes, 0));
  UNROLL_TRY(comm_broadcast(comm, list.count, p.shape.V * sizeof *list.count, 0));
  UNROLL_TRY(comm_agree(comm, first ? UNROLL_OK : token_list_to_vocab(&p, &list, &r->vocab)));
  *out = r;
  r = NULL;

cleanup:
  token_list_free(&list);
  run_free(&r);
  return st;
}
