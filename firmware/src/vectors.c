/* Input vectors on the rows of a block: through column amplifiers where the board has them, else
 * as sums of single conversions. MULTIPLY, which is just that. */
#include <string.h>

#include "internal.h"

enum { HEAD = 48, REPLY_HEAD = 48 };
static const uint64_t CONVERSION_PS = 1000000u; /* of one cell of a sum: 1 us */

static int32_t top_of(uint8_t bits) { return (int32_t)((1u << (bits - 1)) - 1u); }

static enum rb_slice by_hardware(struct rb_board *board) {
    struct rb_vectors *vectors = &board->job.vectors;
    const struct rb_block *block = &vectors->product.block;
    uint32_t n = vectors->count - vectors->at;
    uint32_t fits = RB_VECTORS * RB_MAX_ROWS / block->rows;
    uint32_t answers = RB_VECTORS * RB_MAX_COLUMNS / block->columns;
    double in_time = rb_slice_s(board) / board->can->multiply_s;
    int32_t done;
    n = n < fits ? n : fits;
    n = n < answers ? n : answers;
    n = in_time < (double)n ? (uint32_t)in_time + 1u : n;
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t row = 0; row < block->rows; row++) {
            board->inputs[k * block->rows + row] =
                (int16_t)vectors->input(board, vectors->at + k, row);
        }
    }
    done = board->hooks->multiply(board->hooks->port, &vectors->product, n, board->inputs,
                                  board->codes, &vectors->saturated);
    for (int32_t k = 0; k < done; k++) {
        vectors->take(board, vectors->at++, board->codes + (size_t)k * block->columns);
    }
    return done < 0 ? RB_FAILED : vectors->at < vectors->count ? RB_GOES_ON : RB_DONE;
}

/* The column's sum of currents is complete: its code. */
static void end_column(struct rb_board *board) {
    struct rb_vectors *vectors = &board->job.vectors;
    int32_t top = top_of(board->can->adc_bits);
    double code = rb_rint(vectors->sum_a / (vectors->product.full_scale_a / top));
    if (!(rb_abs(code) <= top)) {
        code = code < 0.0 ? -top : top;
        vectors->saturated++;
    }
    board->codes[vectors->column] = (int32_t)code;
    vectors->sum_a = 0.0;
    vectors->row = 0;
    if (++vectors->column == vectors->product.block.columns) {
        vectors->column = 0;
        vectors->take(board, vectors->at++, board->codes);
    }
}

/* Rows of one column, as many as go to the hardware at once; rows without input carry nothing. */
static enum rb_slice by_conversions(struct rb_board *board) {
    const struct rb_envelope *can = board->can;
    struct rb_vectors *vectors = &board->job.vectors;
    const struct rb_product *product = &vectors->product;
    const struct rb_block *block = &product->block;
    uint32_t first = (block->tile * can->rows + block->row) * can->columns + block->column;
    uint32_t rows[RB_SHOTS], n = 0, reading = 0, row = vectors->row;
    uint64_t width_ps = CONVERSION_PS;
    int32_t done;
    width_ps = width_ps > can->width_low_ps ? width_ps : can->width_low_ps;
    width_ps = width_ps < can->width_high_ps ? width_ps : can->width_high_ps;
    for (; row < block->rows && n < RB_SHOTS; row++) {
        int32_t input = vectors->input(board, vectors->at, row);
        struct rb_shot *shot = &board->shots[n];
        if (input == 0) {
            continue;
        }
        shot->cell = first + row * can->columns + vectors->column;
        shot->width_ps = width_ps;
        shot->measure = RB_CURRENT;
        shot->is_pulse = 0;
        shot->uv[RB_BL] = 0;
        shot->uv[RB_SL] =
            (int32_t)rb_rint((double)input * product->read_uv / top_of(product->input_bits));
        shot->uv[RB_WL] = product->wl_uv;
        shot->body_uv = product->body_uv;
        shot->idle_uv = product->idle_uv;
        rows[n++] = row;
    }
    done = n ? rb_run(board, n) : 0;
    for (int32_t k = 0; k < done; k++, reading++) {
        const struct rb_reading *found = &board->readings[reading];
        /* The bit line gives what the source line takes; over range it saturates the sum. */
        vectors->sum_a -= found->status == RB_OVER_RANGE ? 1e9 * found->current_a : found->current_a;
        vectors->row = rows[k] + 1;
    }
    if (done == (int32_t)n && row == block->rows) {
        end_column(board);
    }
    return done < 0 ? RB_FAILED : vectors->at < vectors->count ? RB_GOES_ON : RB_DONE;
}

enum rb_slice rb_vectors_slice(struct rb_board *board) {
    if (board->job.vectors.at >= board->job.vectors.count) {
        return RB_DONE;
    }
    return board->hooks->multiply ? by_hardware(board) : by_conversions(board);
}

static int32_t input(const struct rb_board *board, uint32_t vector, uint32_t row) {
    const struct rb_vectors *vectors = &board->job.vectors;
    const uint8_t *codes = board->job.as.multiply.codes;
    size_t place = (size_t)vector * vectors->product.block.rows + row;
    if (vectors->product.input_bits <= 8) {
        return codes[place] < 128 ? codes[place] : (int32_t)codes[place] - 256;
    }
    place = rb_u16(codes + 2 * place);
    return place < 32768 ? (int32_t)place : (int32_t)place - 65536;
}

static uint32_t code_bytes(const struct rb_board *board) {
    return board->can->adc_bits <= 16 ? 2 : 4;
}

static enum rb_error parse(struct rb_board *board, struct rb_fields *fields) {
    struct rb_vectors *vectors = &board->job.vectors;
    struct rb_product *product = &vectors->product;
    struct rb_multiply *multiply = &board->job.as.multiply;
    const uint8_t *head = rb_take(fields, 1, HEAD - 4);
    if (!head) {
        return RB_FINE;
    }
    vectors->count = rb_u32(head);
    product->block.tile = rb_u32(head + 4);
    product->block.row = rb_u32(head + 8);
    product->block.rows = rb_u32(head + 12);
    product->block.column = rb_u32(head + 16);
    product->block.columns = rb_u32(head + 20);
    product->read_uv = rb_i32(head + 24);
    product->wl_uv = rb_i32(head + 28);
    product->input_bits = head[32];
    multiply->words = head[33] != 0;
    multiply->others = head[34];
    product->full_scale_a = rb_f64(head + 36);
    if (!rb_take_levels(fields, multiply->others, &product->body_uv, &product->idle_uv)) {
        return rb_refuse(board, RB_BAD_REQUEST, "MULTIPLY: others make no sense");
    }
    if (product->input_bits < 2 || product->input_bits > 16) {
        return rb_refuse(board, RB_RANGE, "inputs of 2 to 16 bits are allowed");
    }
    if (!(product->full_scale_a > 0.0 && rb_is_finite(product->full_scale_a))) {
        return rb_refuse(board, RB_BAD_REQUEST, "MULTIPLY: the full scale must be above 0 A");
    }
    if (product->block.rows > RB_MAX_ROWS) {
        return rb_refuse(board, RB_RANGE, "MULTIPLY: more rows than this board takes");
    }
    multiply->codes = rb_take(fields, (uint64_t)vectors->count * product->block.rows,
                              product->input_bits <= 8 ? 1 : 2);
    return RB_FINE;
}

static size_t reply_size(const struct rb_board *board, uint32_t sum_bytes) {
    const struct rb_vectors *vectors = &board->job.vectors;
    return REPLY_HEAD + (size_t)vectors->count * vectors->product.block.columns *
                            (code_bytes(board) + sum_bytes);
}

static enum rb_error check_codes(struct rb_board *board) {
    const struct rb_vectors *vectors = &board->job.vectors;
    int32_t top = top_of(vectors->product.input_bits);
    uint32_t negative = 0;
    for (uint32_t vector = 0; vector < vectors->count; vector++) {
        for (uint32_t row = 0; row < vectors->product.block.rows; row++) {
            int32_t code = input(board, vector, row);
            if (code > top || code < -top) {
                return rb_refuse(board, RB_BAD_REQUEST, "MULTIPLY: a code has more than its bits");
            }
            negative += code < 0;
        }
    }
    if (negative && (board->abilities & RB_UNSIGNED_INPUTS)) {
        rb_refuse(board, RB_RANGE, "inputs below 0: ");
        rb_say_number(board, negative);
        rb_say(board, ", at most 0");
        return RB_RANGE;
    }
    return RB_FINE;
}

static enum rb_error check(struct rb_board *board) {
    const struct rb_envelope *can = board->can;
    const struct rb_vectors *vectors = &board->job.vectors;
    const struct rb_product *product = &vectors->product;
    const struct rb_hooks *hooks = board->hooks;
    enum rb_error error;
    if (vectors->count > can->max_vectors || product->input_bits > can->input_bits) {
        rb_refuse(board, RB_RANGE, "MULTIPLY: at most ");
        rb_say_number(board, can->max_vectors);
        rb_say(board, " vectors of ");
        rb_say_number(board, can->input_bits);
        rb_say(board, " bits");
        return RB_RANGE;
    }
    if (!rb_is_inside(board, &product->block)) {
        return rb_refuse(board, RB_LIMIT, "MULTIPLY: the block is off the chip");
    }
    if (product->block.columns > RB_MAX_COLUMNS ||
        (uint64_t)vectors->count * product->block.columns > can->max_message / 2 ||
        reply_size(board, board->job.as.multiply.words ? 8 : 0) > can->max_message) {
        return rb_refuse(board, RB_RANGE, "MULTIPLY: more products than a reply holds");
    }
    if (!(product->full_scale_a >= 1e-15 && product->full_scale_a <= 1e3)) {
        return rb_refuse(board, RB_LIMIT, "MULTIPLY: full scale must lie in 1e-15..1000 A");
    }
    if (board->job.as.multiply.words && !can->words) {
        return rb_refuse(board, RB_RANGE, "MULTIPLY: this board has no words");
    }
    if (board->job.as.multiply.words && hooks->words_lost && hooks->words_lost(hooks->port)) {
        return rb_refuse(board, RB_WORDS_LOST, "the on-chip words were lost");
    }
    error = rb_check_others(board, board->job.as.multiply.others);
    error = error ? error : rb_check_product(board, product);
    return error ? error : check_codes(board);
}

static int64_t sum_of_words(const struct rb_board *board, uint32_t vector, uint32_t column) {
    const struct rb_block *block = &board->job.vectors.product.block;
    const struct rb_envelope *can = board->can;
    int64_t sum = 0;
    for (uint32_t row = 0; row < block->rows; row++) {
        uint32_t cell = (block->tile * can->rows + block->row + row) * can->columns +
                        block->column + column;
        int32_t word = board->hooks->load_word(board->hooks->port, cell);
        sum += word ? (int64_t)word * input(board, vector, row) : 0;
    }
    return sum;
}

static uint8_t *sums_at(struct rb_board *board) { return board->reply + reply_size(board, 0); }

static void take(struct rb_board *board, uint32_t vector, const int32_t *codes) {
    uint32_t columns = board->job.vectors.product.block.columns;
    struct rb_multiply *multiply = &board->job.as.multiply;
    for (uint32_t column = 0; column < columns; column++) {
        size_t place = (size_t)vector * columns + column;
        if (code_bytes(board) == 2) {
            rb_put16(board->reply + REPLY_HEAD + 2 * place, (uint16_t)codes[column]);
        } else {
            rb_put32(board->reply + REPLY_HEAD + 4 * place, (uint32_t)codes[column]);
        }
        if (multiply->words) {
            int64_t sum = sum_of_words(board, vector, column);
            rb_put64(sums_at(board) + 8 * place, (uint64_t)sum);
            if (sum < INT32_MIN || sum > INT32_MAX) {
                multiply->sum_bytes = 8;
            }
        }
    }
}

static void begin(struct rb_board *board, struct rb_setup *setup) {
    struct rb_vectors *vectors = &board->job.vectors;
    struct rb_multiply *multiply = &board->job.as.multiply;
    (void)setup;
    vectors->input = input;
    vectors->take = take;
    multiply->sum_bytes = multiply->words ? 4 : 0;
}

static enum rb_slice slice(struct rb_board *board) {
    struct rb_vectors *vectors = &board->job.vectors;
    struct rb_multiply *multiply = &board->job.as.multiply;
    uint32_t products = vectors->count * vectors->product.block.columns;
    enum rb_slice came_to = rb_vectors_slice(board);
    if (came_to != RB_DONE) {
        return came_to;
    }
    for (uint32_t k = 0; multiply->sum_bytes == 4 && k < products; k++) {
        rb_put32(sums_at(board) + 4 * (size_t)k, rb_u32(sums_at(board) + 8 * (size_t)k));
    }
    rb_reply_head(board, vectors->count, reply_size(board, multiply->sum_bytes));
    memset(board->reply + 24, 0, REPLY_HEAD - 24);
    rb_put32(board->reply + 24, vectors->product.block.columns);
    rb_put32(board->reply + 28, vectors->saturated);
    rb_put_f64(board->reply + 32, vectors->product.full_scale_a / top_of(board->can->adc_bits));
    board->reply[40] = (uint8_t)code_bytes(board);
    board->reply[41] = multiply->sum_bytes;
    return RB_DONE;
}

const struct rb_operation rb_multiply_operation = {parse, check, begin, slice, true};
