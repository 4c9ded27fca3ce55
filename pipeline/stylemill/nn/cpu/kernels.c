/* Steps of the network that are limited by memory in torch, where every addition is a pass over it.

   - The transforms of Winograd's algorithm F(4x4, 3x3): the 36 values of a tile stay in registers. winograd.py explains
     the algorithm.
   - The same for F(3x3, 3x3) and kernels of 9 x 9; winograd_head.py explains that.
   - Norm, ReLU and residual in one pass.

   The callers in Python have the same in torch. Compiled with -ffp-contract=off, so that every x86 machine computes
   the same bits. All maps are float32, and the channels of a pixel and the pixels of a row are neighbours in memory. */

#include <stddef.h>
#include <stdlib.h> /* defines __GLIBC__, whose linker resolves the copies below */

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
/* One copy for each instruction set; the dynamic linker picks the best that the machine has. */
#define EACH_INSTRUCTION_SET __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EACH_INSTRUCTION_SET
#endif

/* To be raised with every change of this file: compiled.py does not use a library of another version. */
enum { VERSION = 2 };

int stylemill_kernels_version(void) { return VERSION; }

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { TILE = 4, POINTS = 6, LANES = 8 };

/* Neighbouring channels of one pixel, at any address. */
typedef float many __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float one __attribute__((vector_size(4), aligned(4), may_alias));

/* Evaluate one tile by a transform of vectors: of its columns, then of the rows of their results. */
#define EVALUATE_TILE(NAME, EVALUATE, N, T)                                                                            \
  ALWAYS_INLINE void NAME(const float *window, ptrdiff_t row, ptrdiff_t pixel, float *inputs, ptrdiff_t point) {       \
    T columns[N][N];                                                                                                   \
    for (int x = 0; x < N; x++) {                                                                                      \
      T taps[N];                                                                                                       \
      for (int y = 0; y < N; y++) taps[y] = *(const T *)(window + y * row + x * pixel);                                \
      EVALUATE(taps, columns[x]);                                                                                      \
    }                                                                                                                  \
    for (int p = 0; p < N; p++) {                                                                                      \
      T taps[N], values[N];                                                                                            \
      for (int x = 0; x < N; x++) taps[x] = columns[x][p];                                                             \
      EVALUATE(taps, values);                                                                                          \
      for (int q = 0; q < N; q++) *(T *)(inputs + (p * N + q) * point) = values[q];                                    \
    }                                                                                                                  \
  }

/* Products of the matrices of winograd.py and a vector of six, for T of `many` or `one` channels. */
#define TRANSFORMS(T)                                                                                                  \
  ALWAYS_INLINE void evaluate_##T(const T d[POINTS], T p[POINTS]) {                                                    \
    T a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);                                \
    p[0] = c + 4 * (d[0] - d[2]);                                                                                      \
    p[1] = a + b;                                                                                                      \
    p[2] = a - b;                                                                                                      \
    p[3] = c + e;                                                                                                      \
    p[4] = c - e;                                                                                                      \
    p[5] = (d[5] - d[3]) - 2 * e;                                                                                      \
  }                                                                                                                    \
  ALWAYS_INLINE void interpolate_##T(const T m[POINTS], T y[TILE]) {                                                   \
    T a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];                                              \
    y[0] = m[0] + a + c;                                                                                               \
    y[1] = b + 2 * e;                                                                                                  \
    y[2] = a + 4 * c;                                                                                                  \
    y[3] = b + 8 * e + m[5];                                                                                           \
  }                                                                                                                    \
  EVALUATE_TILE(evaluate_tile_##T, evaluate_##T, POINTS, T)                                                            \
  ALWAYS_INLINE void interpolate_tile_##T(const float *results, ptrdiff_t point, float *out, ptrdiff_t row,            \
                                          ptrdiff_t pixel, ptrdiff_t height, ptrdiff_t width) {                        \
    T rows[POINTS][TILE];                                                                                              \
    for (int q = 0; q < POINTS; q++) {                                                                                 \
      T values[POINTS];                                                                                                \
      for (int p = 0; p < POINTS; p++) values[p] = *(const T *)(results + (p * POINTS + q) * point);                   \
      interpolate_##T(values, rows[q]);                                                                                \
    }                                                                                                                  \
    for (int y = 0; y < TILE && y < height; y++) {                                                                     \
      T values[POINTS], pixels[TILE];                                                                                  \
      for (int q = 0; q < POINTS; q++) values[q] = rows[q][y];                                                         \
      interpolate_##T(values, pixels);                                                                                 \
      for (int x = 0; x < TILE && x < width; x++) *(T *)(out + y * row + x * pixel) = pixels[x];                       \
    }                                                                                                                  \
  }

TRANSFORMS(many)
TRANSFORMS(one)

/* ---- Winograd's transforms ---- */

/* Evaluate the (4 R + 2, 4 T + 2, C) window, whose rows are `row` floats apart, at the 36 points; the results of one
   point, (R, T, C), are `point` floats apart. */
EACH_INSTRUCTION_SET
void stylemill_winograd_evaluate(const float *window, ptrdiff_t row, ptrdiff_t tile_rows, ptrdiff_t tile_columns,
                                 ptrdiff_t channels, float *inputs, ptrdiff_t point) {
  for (ptrdiff_t r = 0; r < tile_rows; r++)
    for (ptrdiff_t t = 0; t < tile_columns; t++) {
      const float *corner = window + TILE * (r * row + t * channels);
      float *tile = inputs + (r * tile_columns + t) * channels;
      ptrdiff_t c = 0;
      for (; c + LANES <= channels; c += LANES) evaluate_tile_many(corner + c, row, channels, tile + c, point);
      for (; c < channels; c++) evaluate_tile_one(corner + c, row, channels, tile + c, point);
    }
}

/* Interpolate the (R, T, parts x C) results of 36 points, `point` floats apart, and write the `height` x `width`
   pixels that lie on the map into each part of (height, width, C); parts are `part` floats apart, rows `row`. */
EACH_INSTRUCTION_SET
void stylemill_winograd_interpolate(const float *results, ptrdiff_t point, ptrdiff_t tile_columns, ptrdiff_t channels,
                                    ptrdiff_t parts, float *out, ptrdiff_t part, ptrdiff_t row, ptrdiff_t height,
                                    ptrdiff_t width) {
  for (ptrdiff_t top = 0; top < height; top += TILE)
    for (ptrdiff_t left = 0; left < width; left += TILE)
      for (ptrdiff_t index = 0; index < parts; index++) {
        const float *tile = results + ((top / TILE * tile_columns + left / TILE) * parts + index) * channels;
        float *corner = out + index * part + top * row + left * channels;
        ptrdiff_t c = 0;
        for (; c + LANES <= channels; c += LANES)
          interpolate_tile_many(tile + c, point, corner + c, row, channels, height - top, width - left);
        for (; c < channels; c++)
          interpolate_tile_one(tile + c, point, corner + c, row, channels, height - top, width - left);
      }
}

/* ---- Winograd's transforms for the last layer ---- */

enum { HEAD_TILE = 3, HEAD_POINTS = 5, COLOURS = 3, KERNEL_TILES = 3 };

#define HEAD_TRANSFORMS(T)                                                                                             \
  ALWAYS_INLINE void evaluate_head_##T(const T d[HEAD_POINTS], T p[HEAD_POINTS]) {                                     \
    T a = d[3] - d[1], b = 2 * (d[1] - d[3]);                                                                          \
    p[0] = (a - 2 * d[2]) + 2 * d[0];                                                                                  \
    p[1] = (d[3] - d[2]) - 2 * d[1];                                                                                   \
    p[2] = (d[3] - 3 * d[2]) + 2 * d[1];                                                                               \
    p[3] = a;                                                                                                          \
    p[4] = (d[4] - d[2]) + b;                                                                                          \
  }                                                                                                                    \
  EVALUATE_TILE(evaluate_head_tile_##T, evaluate_head_##T, HEAD_POINTS, T)                                             \
  ALWAYS_INLINE void interpolate_head_##T(const T m[HEAD_POINTS], T y[HEAD_TILE]) {                                    \
    T a = m[1] + m[2];                                                                                                 \
    y[0] = (m[0] + a) + m[3];                                                                                          \
    y[1] = (m[1] - m[2]) + 2 * m[3];                                                                                   \
    y[2] = (a + 4 * m[3]) + m[4];                                                                                      \
  }                                                                                                                    \
  /* The results of neighbouring tiles, one per lane, in one colour: add up the products of the nine kernels, each of  \
     which belongs to another tile of the input, and interpolate. */                                                   \
  ALWAYS_INLINE void combine_head_##T(const float *const products[KERNEL_TILES], ptrdiff_t kernel_step, ptrdiff_t tile, \
                                      int colour, T result[HEAD_TILE][HEAD_TILE]) {                                    \
    T rows[HEAD_POINTS][HEAD_TILE];                                                                                    \
    for (int q = 0; q < HEAD_POINTS; q++) {                                                                            \
      T values[HEAD_POINTS];                                                                                           \
      for (int p = 0; p < HEAD_POINTS; p++) {                                                                          \
        const ptrdiff_t kernels = KERNEL_TILES * KERNEL_TILES * COLOURS;                                               \
        T sum = {0};                                                                                                   \
        for (int y = 0; y < KERNEL_TILES; y++)                                                                         \
          for (int x = 0; x < KERNEL_TILES; x++) {                                                                     \
            ptrdiff_t kernel = (p * HEAD_POINTS + q) * kernels + (y * KERNEL_TILES + x) * COLOURS + colour;            \
            sum += *(const T *)(products[y] + kernel * kernel_step + tile + x);                                        \
          }                                                                                                            \
        values[p] = sum;                                                                                               \
      }                                                                                                                \
      interpolate_head_##T(values, rows[q]);                                                                           \
    }                                                                                                                  \
    for (int y = 0; y < HEAD_TILE; y++) {                                                                              \
      T values[HEAD_POINTS];                                                                                           \
      for (int q = 0; q < HEAD_POINTS; q++) values[q] = rows[q][y];                                                    \
      interpolate_head_##T(values, result[y]);                                                                         \
    }                                                                                                                  \
  }

HEAD_TRANSFORMS(many)
HEAD_TRANSFORMS(one)

/* Evaluate R rows of T tiles, whose (3 R + 2, 3 T + 2, C) window has rows `row` floats apart, at the 25 points; the
   results of one point, (R, T, C), are `point` floats apart. */
EACH_INSTRUCTION_SET
void stylemill_head_evaluate(const float *window, ptrdiff_t row, ptrdiff_t tile_rows, ptrdiff_t tiles,
                             ptrdiff_t channels, float *inputs, ptrdiff_t point) {
  for (ptrdiff_t r = 0; r < tile_rows; r++)
    for (ptrdiff_t t = 0; t < tiles; t++) {
      const float *corner = window + HEAD_TILE * (r * row + t * channels);
      float *tile = inputs + (r * tiles + t) * channels;
      ptrdiff_t c = 0;
      for (; c + LANES <= channels; c += LANES) evaluate_head_tile_many(corner + c, row, channels, tile + c, point);
      for (; c < channels; c++) evaluate_head_tile_one(corner + c, row, channels, tile + c, point);
    }
}

/* Write `height` rows of `width` pixels, whose colours are neighbours and whose rows are `row` floats apart, from the
   (25, 9 x 3) products of three rows of `tiles` tiles, `kernel_step` floats apart; tile t of the result needs t, t + 1
   and t + 2 of each. */
EACH_INSTRUCTION_SET
void stylemill_head_combine(const float *top, const float *middle, const float *bottom, ptrdiff_t kernel_step,
                            ptrdiff_t tiles, const float *bias, float *out, ptrdiff_t row, ptrdiff_t height,
                            ptrdiff_t width) {
  const float *const products[KERNEL_TILES] = {top, middle, bottom};
  const ptrdiff_t results = tiles - KERNEL_TILES + 1;
  for (ptrdiff_t tile = 0; tile * HEAD_TILE < width;) {
    const int lanes = tile + LANES <= results ? LANES : 1;
    for (int colour = 0; colour < COLOURS; colour++) {
      float result[HEAD_TILE][HEAD_TILE][LANES];
      if (lanes == LANES) {
        many values[HEAD_TILE][HEAD_TILE];
        combine_head_many(products, kernel_step, tile, colour, values);
        for (int y = 0; y < HEAD_TILE; y++)
          for (int x = 0; x < HEAD_TILE; x++) *(many *)result[y][x] = values[y][x];
      } else {
        one values[HEAD_TILE][HEAD_TILE];
        combine_head_one(products, kernel_step, tile, colour, values);
        for (int y = 0; y < HEAD_TILE; y++)
          for (int x = 0; x < HEAD_TILE; x++) result[y][x][0] = values[y][x][0];
      }
      for (int y = 0; y < HEAD_TILE && y < height; y++)
        for (int lane = 0; lane < lanes; lane++)
          for (int x = 0; x < HEAD_TILE; x++) {
            ptrdiff_t column = (tile + lane) * HEAD_TILE + x;
            if (column < width) out[y * row + column * COLOURS + colour] = result[y][x][lane] + bias[colour];
          }
    }
    tile += lanes;
  }
}

/* ---- Norm ---- */

enum { PLAIN, RELU, RESIDUAL };

ALWAYS_INLINE void normalise_row(const float *restrict raw, ptrdiff_t pixels, ptrdiff_t channels,
                                 const float *restrict gain, const float *restrict offset, int then,
                                 const float *restrict residual, float *restrict out) {
  for (ptrdiff_t x = 0; x < pixels; x++, raw += channels, residual += channels, out += channels)
    for (ptrdiff_t c = 0; c < channels; c++) {
      float value = raw[c] * gain[c] + offset[c];
      if (then == RESIDUAL) value += residual[c];
      if (then == RELU) value = value < 0 ? 0 : value; /* NaN stays */
      out[c] = value;
    }
}

/* Write `raw x gain + offset` of (rows, pixels, C), after a ReLU, or with `residual` added, or neither; rows of each
   map are `raw_row`, `residual_row` and `out_row` floats apart. */
EACH_INSTRUCTION_SET
void stylemill_normalise(const float *raw, ptrdiff_t raw_row, ptrdiff_t rows, ptrdiff_t pixels, ptrdiff_t channels,
                         const float *gain, const float *offset, int then, const float *residual,
                         ptrdiff_t residual_row, float *out, ptrdiff_t out_row) {
  for (ptrdiff_t y = 0; y < rows; y++, raw += raw_row, residual += residual_row, out += out_row)
    switch (then) {
    case RELU: normalise_row(raw, pixels, channels, gain, offset, RELU, residual, out); break;
    case RESIDUAL: normalise_row(raw, pixels, channels, gain, offset, RESIDUAL, residual, out); break;
    default: normalise_row(raw, pixels, channels, gain, offset, PLAIN, residual, out);
    }
}
