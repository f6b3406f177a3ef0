"""The operations of a network in C99, by name, each after those that it calls."""

FUNCTIONS = (
    (
        "qevo_shift_round",
        """/* value / 2^shift, a half to the even side; defined for negative values too. */
static int64_t qevo_shift(int64_t value, int shift) {
  return value >= 0 ? value >> shift : ~(~value >> shift);
}

static int64_t qevo_shift_round(int64_t value, int shift) {
  if (shift == 0) return value;
  return qevo_shift(value + (((int64_t)1 << (shift - 1)) - 1) + (qevo_shift(value, shift) & 1),
                    shift);
}
""",
    ),
    (
        "qevo_clip",
        """static int8_t qevo_clip(int64_t value, int low, int high) {
  return (int8_t)(value < low ? low : value > high ? high : value);
}
""",
    ),
    (
        "qevo_weight",
        """/* A weight of 2, 4 or 8 bits in two's complement, the first in the lowest bits. */
static int qevo_weight(const uint8_t *weights, int bits, int32_t place) {
  int32_t each = 8 / bits;
  int field = (weights[place / each] >> (place % each * bits)) & ((1 << bits) - 1);
  return field >= 1 << (bits - 1) ? field - (1 << bits) : field;
}
""",
    ),
    (
        "qevo_sum",
        """/* The products of channel f's weights and the inputs at one place: all channels, or f
   alone where each has a filter of its own. */
static int32_t qevo_sum(const int8_t *x, int height, int width, int channels, int rows,
                        int columns, int y0, int x0, int own, const uint8_t *weights,
                        int bits, int f) {
  int begin = own ? f : 0, end = own ? f + 1 : channels;
  int32_t sum = 0, place = f * rows * columns * (end - begin);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++)
      for (int c = begin; c < end; c++, place++) {
        int row = y0 + i, column = x0 + j;
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        sum += x[(row * width + column) * channels + c] * qevo_weight(weights, bits, place);
      }
  return sum;
}
""",
    ),
    (
        "qevo_input",
        """static void qevo_input(const uint8_t *image, const int8_t *table, int height, int width,
                       int channels, int8_t *y) {
  for (int i = 0; i < height * width; i++)
    for (int c = 0; c < channels; c++)
      y[i * channels + c] = table[256 * c + image[i * channels + c]];
}
""",
    ),
    (
        "qevo_product",
        """/* A convolution, or with a 1 x 1 image a dense layer, and its requantization; of what is
   negative to a tenth, where it leaks. */
static void qevo_product(const int8_t *x, int height, int width, int channels, int rows,
                         int columns, int down, int right, int top, int left, int out_height,
                         int out_width, int features, int own, const uint8_t *weights,
                         int bits, const int32_t *multiplier, const int32_t *bias,
                         const uint8_t *shift, int leaky, int low, int high, int8_t *y) {
  for (int i = 0; i < out_height; i++)
    for (int j = 0; j < out_width; j++)
      for (int f = 0; f < features; f++) {
        int64_t sum = qevo_sum(x, height, width, channels, rows, columns, i * down - top,
                               j * right - left, own, weights, bits, f) + bias[f];
        int leaks = leaky && sum < 0;
        int32_t factor = leaks ? (4 * multiplier[f] + 2) / 5 : multiplier[f];
        int64_t scaled = qevo_shift_round(sum * factor, shift[f] + (leaks ? 3 : 0));
        y[(i * out_width + j) * features + f] = qevo_clip(scaled, low, high);
      }
}
""",
    ),
    (
        "qevo_last",
        """/* The same, with the network's int32 output. */
static void qevo_last(const int8_t *x, int height, int width, int channels, int rows,
                      int columns, int down, int right, int top, int left, int out_height,
                      int out_width, int features, int own, const uint8_t *weights, int bits,
                      const int32_t *multiplier, const int32_t *bias, int32_t *y) {
  for (int i = 0; i < out_height; i++)
    for (int j = 0; j < out_width; j++)
      for (int f = 0; f < features; f++)
        y[(i * out_width + j) * features + f] =
            qevo_sum(x, height, width, channels, rows, columns, i * down - top, j * right - left,
                     own, weights, bits, f) *
                multiplier[f] +
            bias[f];
}
""",
    ),
    (
        "qevo_add",
        """static void qevo_add(const int8_t *a, const int8_t *b, int count, int left_a, int left_b,
                     int right, int low, int high, int8_t *y) {
  for (int i = 0; i < count; i++) {
    int64_t sum = a[i] * ((int64_t)1 << left_a) + b[i] * ((int64_t)1 << left_b);
    y[i] = qevo_clip(qevo_shift_round(sum, right), low, high);
  }
}
""",
    ),
    (
        "qevo_average",
        """static void qevo_average(const int8_t *x, int height, int width, int channels,
                         int32_t multiplier, int shift, int low, int high, int8_t *y) {
  for (int c = 0; c < channels; c++) {
    int64_t sum = 0;
    for (int i = 0; i < height * width; i++) sum += x[i * channels + c];
    y[c] = qevo_clip(qevo_shift_round(sum * multiplier, shift), low, high);
  }
}
""",
    ),
    (
        "qevo_max_pool",
        """static void qevo_max_pool(const int8_t *x, int height, int width, int channels, int rows,
                          int columns, int down, int right, int top, int left, int out_height,
                          int out_width, int8_t *y) {
  for (int i = 0; i < out_height; i++)
    for (int j = 0; j < out_width; j++)
      for (int c = 0; c < channels; c++) {
        int8_t best = -128;
        for (int k = 0; k < rows * columns; k++) {
          int row = i * down - top + k / columns, column = j * right - left + k % columns;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          int8_t value = x[(row * width + column) * channels + c];
          if (value > best) best = value;
        }
        y[(i * out_width + j) * channels + c] = best;
      }
}
""",
    ),
    (
        "qevo_pad_channels",
        """static void qevo_pad_channels(const int8_t *x, int pixels, int channels, int before,
                              int after, int8_t *y) {
  for (int i = 0; i < pixels; i++) {
    for (int c = 0; c < before; c++) *y++ = 0;
    for (int c = 0; c < channels; c++) *y++ = *x++;
    for (int c = 0; c < after; c++) *y++ = 0;
  }
}
""",
    ),
    (
        "qevo_upsample",
        """static void qevo_upsample(const int8_t *x, int height, int width, int channels,
                          int factor, int8_t *y) {
  for (int i = 0; i < height * factor; i++)
    for (int j = 0; j < width * factor; j++)
      for (int c = 0; c < channels; c++)
        *y++ = x[(i / factor * width + j / factor) * channels + c];
}
""",
    ),
    (
        "qevo_place",
        """/* Channels into a wider image, beginning at one of its channels. */
static void qevo_place(const int8_t *x, int pixels, int channels, int first, int total,
                       int8_t *y) {
  for (int i = 0; i < pixels; i++)
    for (int c = 0; c < channels; c++) y[i * total + first + c] = *x++;
}
""",
    ),
    (
        "qevo_copy",
        """static void qevo_copy(const int8_t *x, int count, int8_t *y) {
  for (int i = 0; i < count; i++) y[i] = x[i];
}
""",
    ),
)

MAIN = """#ifdef QEVO_MAIN
#include <stdio.h>

int main(void) {
  static uint8_t image[QEVO_INPUTS];
  static int32_t output[QEVO_OUTPUTS];
  while (fread(image, 1, QEVO_INPUTS, stdin) == QEVO_INPUTS) {
    qevo_run(image, output);
    for (int i = 0; i < QEVO_OUTPUTS; i++)
      printf("%ld%c", (long)output[i], i + 1 < QEVO_OUTPUTS ? ' ' : '\\n');
  }
  return 0;
}
#endif
"""
