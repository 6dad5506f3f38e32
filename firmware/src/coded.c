/* One block read by orthogonal codes (section 6, READ BLOCKS: codes, decoding, range). */
#include <string.h>

#include "internal.h"

enum { SPARE = 16, PILOTS = 8, MOST_TRIES = 16 };
static const double FIRST_S = 100e-6, LEAST_A = 1e-9, ROOM = 5.0;
static const double PI = 3.141592653589793;

static bool is_prime(uint32_t q) {
    for (uint32_t d = 2; d * d <= q; d++) {
        if (q % d == 0) {
            return false;
        }
    }
    return q > 2;
}

/* The smallest order for so many rows. */
static void find_order(struct rb_coded *coded, uint32_t rows) {
    for (coded->order = (rows + 1 + SPARE + 3) / 4 * 4;; coded->order += 4) {
        uint32_t m = coded->order;
        for (coded->doublings = 0; m > 2 && m % 2 == 0; coded->doublings++, m /= 2) {
            if (m % 4 == 0 && is_prime(m - 1)) {
                coded->prime = m - 1;
                return;
            }
        }
    }
}

static int entry(const struct rb_board *board, uint32_t v, uint32_t j) {
    const struct rb_coded *coded = &board->job.coded;
    uint32_t common = v & j & ((1u << coded->doublings) - 1u);
    int sign = 1;
    for (; common; common &= common - 1u) {
        sign = -sign;
    }
    v >>= coded->doublings;
    j >>= coded->doublings;
    if (v == 0 || j == 0) {
        return sign;
    }
    return v == j || board->residues[(j + coded->prime - v) % coded->prime] ? -sign : sign;
}

static uint32_t place_of(uint32_t row, uint32_t rows, uint32_t order) {
    if (2 * rows >= order) {
        return row + 1;
    }
    return rows > 1 ? 1 + row * (order - 2) / (rows - 1) : 1;
}

static int sign_of(uint32_t row) {
    uint64_t square = (uint64_t)(row + 1) * (row + 1);
    return (rb_root(5 * square * square) - square) % 2 ? -1 : 1;
}

static uint32_t rows_of(const struct rb_board *board) {
    return board->job.vectors.product.block.rows;
}

static uint32_t columns_of(const struct rb_board *board) {
    return board->job.vectors.product.block.columns;
}

static bool is_unsigned(const struct rb_board *board) {
    return (board->abilities & RB_UNSIGNED_INPUTS) != 0;
}

/* Positive parts of all vectors first, then negative ones, where inputs may not be negative. */
static int32_t input(const struct rb_board *board, uint32_t vector, uint32_t row) {
    const struct rb_coded *coded = &board->job.coded;
    uint32_t order = coded->order, all = coded->is_pilot ? PILOTS : order;
    uint32_t v = vector % all;
    int32_t top = (int32_t)((1u << (board->job.vectors.product.input_bits - 1)) - 1u);
    int sign;
    v = coded->is_pilot ? v * order / PILOTS : v;
    sign = sign_of(row) * entry(board, v, place_of(row, rows_of(board), order));
    if (is_unsigned(board)) {
        return (sign > 0) == (vector < all) ? top : 0;
    }
    return sign * top;
}

static void take(struct rb_board *board, uint32_t vector, const int32_t *codes) {
    const struct rb_coded *coded = &board->job.coded;
    uint32_t columns = columns_of(board);
    int half = vector < coded->order ? 1 : -1;
    if (coded->is_pilot) {
        for (uint32_t c = 0; c < columns; c++) {
            board->decoded[vector * columns + c] = codes[c];
        }
        return;
    }
    for (uint32_t j = 0; j < coded->order; j++) {
        int sign = half * entry(board, vector % coded->order, j);
        for (uint32_t c = 0; c < columns; c++) {
            board->decoded[j * columns + c] += sign * (double)codes[c];
        }
    }
}

static double lsb_a(const struct rb_board *board) {
    return board->job.coded.full_scale_a / (double)((1u << (board->can->adc_bits - 1)) - 1u);
}

static double read_v(const struct rb_board *board) {
    return rb_volts(board->job.vectors.product.read_uv);
}

double rb_coded_lsb_s(const struct rb_board *board) { return lsb_a(board) / read_v(board); }

/* Multiply the pilots, or the code once. */
static void multiply(struct rb_board *board, bool is_pilot) {
    struct rb_vectors *vectors = &board->job.vectors;
    struct rb_coded *coded = &board->job.coded;
    coded->is_pilot = is_pilot;
    vectors->product.full_scale_a = coded->full_scale_a;
    vectors->count = (is_pilot ? (uint32_t)PILOTS : coded->order) * (is_unsigned(board) ? 2 : 1);
    vectors->at = vectors->saturated = vectors->column = vectors->row = 0;
    vectors->sum_a = 0.0;
    memset(board->decoded, 0, sizeof(double) * coded->order * columns_of(board));
}

bool rb_code_fits(const struct rb_board *board, const struct rb_block *block) {
    struct rb_coded coded;
    if (block->rows > RB_MAX_ROWS || block->columns > RB_MAX_COLUMNS) {
        return false;
    }
    find_order(&coded, block->rows);
    return coded.order <= sizeof board->residues && coded.order <= RB_CODE_VALUES / block->columns;
}

void rb_coded_begin(struct rb_board *board, const struct rb_product *product, uint32_t repeat) {
    const struct rb_block *block = &product->block;
    struct rb_vectors *vectors = &board->job.vectors;
    struct rb_coded *coded = &board->job.coded;
    uint8_t bits = board->can->input_bits;
    memset(coded, 0, sizeof *coded);
    find_order(coded, block->rows);
    memset(board->residues, 0, sizeof board->residues);
    for (uint32_t x = 1; x < coded->prime; x++) {
        board->residues[x * x % coded->prime] = 1;
    }
    coded->repeat = repeat;
    vectors->input = input;
    vectors->take = take;
    vectors->product = *product;
    vectors->product.input_bits = bits < 8 ? bits : 8;
    coded->full_scale_a = read_v(board) * FIRST_S * rb_sqrt(2.0 * block->rows);
    memset(board->averaged, 0, sizeof(double) * coded->order * block->columns);
    memset(board->scatter, 0, sizeof(double) * block->columns);
    multiply(board, true);
}

/* Room for what the pilots let expect of the column that conducts most. */
static double wanted_a(const struct rb_board *board) {
    uint32_t columns = columns_of(board), n = board->job.vectors.count;
    double most = 2.0;
    for (uint32_t c = 0; c < columns; c++) {
        double mean = 0.0, square = 0.0, expected;
        for (uint32_t k = 0; k < n; k++) {
            double code = board->decoded[k * columns + c];
            mean += code / n;
            most = rb_abs(code) + 1.0 > most ? rb_abs(code) + 1.0 : most;
        }
        mean = is_unsigned(board) ? mean : 0.0; /* both signs have none */
        for (uint32_t k = 0; k < n; k++) {
            double from_mean = board->decoded[k * columns + c] - mean;
            square += from_mean * from_mean;
        }
        expected = rb_abs(mean) + ROOM * rb_sqrt(square / n);
        most = expected > most ? expected : most;
    }
    return most * lsb_a(board);
}

/* The pilots are in: once more in another range, or the code itself. */
static void end_pilots(struct rb_board *board) {
    struct rb_coded *coded = &board->job.coded;
    bool is_clipped = board->job.vectors.saturated != 0;
    double wanted = is_clipped ? 8.0 * coded->full_scale_a : wanted_a(board);
    bool is_near = !is_clipped && wanted >= coded->full_scale_a / 8.0;
    bool is_last = is_near || wanted <= LEAST_A || ++coded->tries == MOST_TRIES;
    coded->full_scale_a = wanted > LEAST_A ? wanted : LEAST_A;
    multiply(board, !is_last);
}

/* The places of rows, and column 0, are marked in `seen`; the others are spare. */
static void mark_places(struct rb_board *board) {
    uint32_t rows = rows_of(board), order = board->job.coded.order;
    memset(board->seen, 0, sizeof board->seen);
    board->seen[0] = 1;
    for (uint32_t row = 0; row < rows; row++) {
        uint32_t place = place_of(row, rows, order);
        board->seen[place / 8] = (uint8_t)(board->seen[place / 8] | 1u << place % 8);
    }
}

/* Mean square of the spare places of a column. */
static double spare_square(const struct rb_board *board, const double *values, uint32_t column) {
    double sum = 0.0;
    uint32_t n = 0;
    for (uint32_t j = 0; j < board->job.coded.order; j++) {
        if (!(board->seen[j / 8] >> j % 8 & 1)) {
            double value = values[j * columns_of(board) + column];
            sum += value * value;
            n++;
        }
    }
    return sum / n;
}

/* One turn of the code is in. False where it is to be multiplied again in a wider range. */
static bool end_turn(struct rb_board *board) {
    struct rb_coded *coded = &board->job.coded;
    uint32_t clipped = board->job.vectors.saturated, columns = columns_of(board);
    double scale = lsb_a(board) / (coded->order * read_v(board));
    if (clipped && coded->widened < MOST_TRIES) {
        coded->widened++;
        coded->full_scale_a *= 2.0;
        return false;
    }
    mark_places(board);
    for (uint32_t k = 0; k < coded->order * columns; k++) {
        board->decoded[k] *= scale;
        board->averaged[k] += board->decoded[k];
    }
    for (uint32_t c = 0; c < columns; c++) {
        board->scatter[c] += spare_square(board, board->decoded, c);
    }
    coded->saturated += clipped;
    coded->turn++;
    return true;
}

enum rb_slice rb_coded_slice(struct rb_board *board) {
    struct rb_coded *coded = &board->job.coded;
    enum rb_slice slice = rb_vectors_slice(board);
    if (slice != RB_DONE) {
        return slice;
    }
    coded->vectors += board->job.vectors.count;
    if (coded->is_pilot) {
        end_pilots(board);
        return RB_GOES_ON;
    }
    if (end_turn(board) && coded->turn == coded->repeat) {
        return RB_DONE;
    }
    multiply(board, false);
    return RB_GOES_ON;
}

double rb_coded_conductance(const struct rb_board *board, uint32_t row, uint32_t column) {
    const struct rb_coded *coded = &board->job.coded;
    uint32_t place = place_of(row, rows_of(board), coded->order);
    return sign_of(row) * board->averaged[place * columns_of(board) + column] / coded->repeat;
}

/* What rounding takes from every vector alike, which no spare place shows. */
static double held_back_s(const struct rb_board *board, uint32_t column) {
    const struct rb_coded *coded = &board->job.coded;
    double step_s = rb_coded_lsb_s(board), whole = is_unsigned(board) ? 2.0 / 12.0 : 1.0 / 12.0;
    double scatter = board->scatter[column] / coded->repeat / (step_s * step_s);
    double shaken = coded->order * scatter - whole, others = 1.0, left;
    shaken = shaken > 0.0 ? shaken : 0.0;
    for (uint32_t row = 0; row < rows_of(board); row++) {
        double g = rb_coded_conductance(board, row, column) / step_s;
        double spread = (1.0 + rb_exp(-8.0 * (PI * g) * (PI * g))) / 2.0;
        double apart = rb_cos_turns(g) * rb_cos_turns(g);
        others *= spread > apart ? spread : apart;
    }
    left = (2.0 * others < 1.0 ? 2.0 * others : 1.0) * rb_exp(-4.0 * PI * PI * shaken);
    return step_s * rb_sqrt(whole * left);
}

double rb_coded_sigma(const struct rb_board *board, uint32_t column) {
    const struct rb_coded *coded = &board->job.coded;
    double repeats = (double)coded->repeat * coded->repeat;
    double held = held_back_s(board, column);
    return rb_sqrt(spare_square(board, board->averaged, column) / repeats + held * held);
}
