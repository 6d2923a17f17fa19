#include "runfile/diagnostics.h"

#include "base/build.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "runfile/image.h"

#include <stdio.h>
#include <string.h>

#define GROUP "/diagnostics"

/* A dataset of a result: a curve over the lags, values by their rank, or one number for each layer. */
typedef enum kind { CURVE, SPECTRUM, NUMBER } kind;
typedef struct dataset {
  const char *name;
  kind kind;
  size_t offset; /* of the pointer in unroll_gradflow */
  const char *units, *long_name;
} dataset;

#define AT(field) #field, .offset = offsetof(unroll_gradflow, field)

static const dataset reals[] = {
    {AT(norm_mean), .kind = CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the hidden state some steps before, mean over "
                  "positions"},
    {AT(norm_q10), .kind = CURVE, .units = "nats", .long_name = "the same, quantile 0.1"},
    {AT(norm_q50), .kind = CURVE, .units = "nats", .long_name = "the same, median"},
    {AT(norm_q90), .kind = CURVE, .units = "nats", .long_name = "the same, quantile 0.9"},
    {AT(norm_log10), .kind = CURVE, .units = "1",
     .long_name = "decimal logarithm of the norm, mean over positions"},
    {AT(eigenvalue_re), .kind = SPECTRUM, .units = "1",
     .long_name = "eigenvalues of W_hh by falling modulus, real part"},
    {AT(eigenvalue_im), .kind = SPECTRUM, .units = "1",
     .long_name = "eigenvalues of W_hh by falling modulus, imaginary part"},
    {AT(singular_value), .kind = SPECTRUM, .units = "1", .long_name = "singular values of W_hh"},
    {AT(spectral_radius), .kind = NUMBER, .units = "1",
     .long_name = "largest modulus of an eigenvalue of W_hh"},
    {AT(spectral_norm), .kind = NUMBER, .units = "1",
     .long_name = "largest singular value of W_hh"},
    {AT(lyapunov), .kind = NUMBER, .units = "step-1",
     .long_name = "largest Lyapunov exponent of the product of Jacobians along the text"},
    {AT(derivative), .kind = NUMBER, .units = "1",
     .long_name = "derivative of the activation, mean over units and steps"},
    {AT(growth), .kind = NUMBER, .units = "1",
     .long_name = "factor per step of the norm over the farther half of the lags"},
};

static const dataset wholes[] = {
    {AT(half_lag), .kind = NUMBER, .units = "steps",
     .long_name = "first lag with half of the mean norm of lag 0, -1 for none"},
    {AT(percent_lag), .kind = NUMBER, .units = "steps",
     .long_name = "first lag with 1% of the mean norm of lag 0, -1 for none"},
};

static const void *array_of(const unroll_gradflow *f, const dataset *d)
{
  const void *array = NULL;
  memcpy(&array, (const char *)f + d->offset, sizeof array);
  return array;
}

static unroll_status put_datasets(const h5_file *file, const unroll_gradflow *f, size_t n,
                                  const dataset *datasets, hid_t type, hid_t memory)
{
  unroll_status st = UNROLL_OK;
  const h5_dim layer = {f->L, GROUP "/layer"}, none = {0, NULL};
  const h5_dim second[] = {{(size_t)f->lags + 1, GROUP "/lag"}, {f->H, GROUP "/mode"}, none};

  for (size_t i = 0; i < n; ++i) {
    const dataset *d = &datasets[i];
    const h5_shape shape = {
        d->kind == NUMBER ? 1 : 2, {layer, second[d->kind]}, false, d->units, d->long_name};
    char object[H5_PATH];
    (void)snprintf(object, sizeof object, GROUP "/%s", d->name);
    UNROLL_TRY(h5_put(file, object, type, &shape, memory, array_of(f, d)));
  }

cleanup:
  return st;
}

static unroll_status put_root(const h5_file *file, const unroll_gradflow *f,
                              const char *command_line)
{
  unroll_status st = UNROLL_OK;
  char title[160], now[CLOCK_ISO_SIZE];
  char *history = NULL;
  size_t size = CLOCK_ISO_SIZE + 1 + strlen(command_line);

  clock_iso(now);
  (void)snprintf(title, sizeof title, "gradient flow: hidden units %zu, layers %zu, lags %zu", f->H,
                 f->L, (size_t)f->lags);
  UNROLL_TRY(memory_new(size, 1, "the history", &history));
  (void)snprintf(history, size, "%s %s", now, command_line);
  UNROLL_TRY(h5_put_text(file, "/", "format", DIAGNOSTICS_FORMAT));
  UNROLL_TRY(h5_put_int(file, "/", "format_version", DIAGNOSTICS_VERSION));
  UNROLL_TRY(h5_put_text(file, "/", "title", title));
  UNROLL_TRY(h5_put_text(file, "/", "source", "unroll " UNROLL_VERSION));
  UNROLL_TRY(h5_put_text(file, "/", "history", history));

cleanup:
  memory_free(&history);
  return st;
}

static unroll_status put_group(const h5_file *file, const unroll_gradflow *f, const char *run)
{
  unroll_status st = UNROLL_OK;
  const char **verdict = NULL;
  const h5_shape by_layer = {
      1, {{f->L, GROUP "/layer"}}, false, "1", "vanishing, stable or exploding"};

  UNROLL_TRY(h5_put_group(file, GROUP));
  UNROLL_TRY(h5_put_text(file, GROUP, "run", run));
  UNROLL_TRY(h5_put_count(file, GROUP, "step", f->step));
  UNROLL_TRY(h5_put_count(file, GROUP, "positions", f->positions));
  UNROLL_TRY(h5_put_count(file, GROUP, "lags", f->lags));
  UNROLL_TRY(h5_put_count(file, GROUP, "context", f->context));
  UNROLL_TRY(h5_put_count(file, GROUP, "tokens", f->tokens));
  UNROLL_TRY(h5_put_count(file, GROUP, "unknown", f->unknown));
  UNROLL_TRY(h5_put_index(file, GROUP "/layer", "layer, from the input on", f->L));
  UNROLL_TRY(h5_put_index(file, GROUP "/lag", "steps back from the loss", (size_t)f->lags + 1));
  UNROLL_TRY(
      h5_put_index(file, GROUP "/mode", "eigenvalue or singular value, from the largest on", f->H));
  UNROLL_TRY(put_datasets(file, f, sizeof reals / sizeof reals[0], reals, H5T_IEEE_F64LE,
                          H5T_NATIVE_DOUBLE));
  UNROLL_TRY(put_datasets(file, f, sizeof wholes / sizeof wholes[0], wholes, H5T_STD_I64LE,
                          H5T_NATIVE_INT64));
  UNROLL_TRY(memory_new(f->L, sizeof *verdict, "verdicts", &verdict));
  for (size_t l = 0; l < f->L; ++l) { verdict[l] = unroll_flow_text(f->verdict[l]); }
  UNROLL_TRY(h5_put_strings(file, GROUP "/verdict", &by_layer, verdict));

cleanup:
  memory_free(&verdict);
  return st;
}

unroll_status diagnostics_write(const char *path, const unroll_gradflow *f, const char *run,
                                const char *command_line)
{
  unroll_status st = UNROLL_OK;
  h5_file opened = {H5I_INVALID_HID, path, UNROLL_ERR_HDF5};
  const h5_file *file = &opened;
  const size_t values = 5 * f->L * ((size_t)f->lags + 1) + 3 * f->L * f->H + 16 * f->L;
  image m = {0};
  h5_printing before = {0};

  h5_quiet(&before);
  UNROLL_TRY(image_create(&opened, &m, 16 * values + 4 * strlen(command_line)));
  UNROLL_TRY(put_root(file, f, command_line));
  UNROLL_TRY(put_group(file, f, run));
  UNROLL_TRY(image_save(file, &m));

cleanup:
  st = h5_close(file, st, H5Fclose, &opened.id);
  image_free(&m);
  h5_loud(&before);
  return st;
}
