/* READ BLOCKS: the blocks one after the other, conductances in 16 bits. */
#include <string.h>

#include "internal.h"

enum { REPLY_HEAD = 32 };

static struct rb_block block_of(const struct rb_blocks *blocks, uint32_t k) {
    const uint8_t *at = blocks->blocks + 20 * (size_t)k;
    struct rb_block block = {rb_u32(at), rb_u32(at + 4), rb_u32(at + 8), rb_u32(at + 12),
                             rb_u32(at + 16)};
    return block;
}

/* Mark the cells of a block; false where one is marked already. */
static bool mark(struct rb_board *board, const struct rb_block *block) {
    const struct rb_envelope *can = board->can;
    for (uint32_t row = 0; row < block->rows; row++) {
        for (uint32_t column = 0; column < block->columns; column++) {
            uint32_t cell = (block->tile * can->rows + block->row + row) * can->columns +
                            block->column + column;
            if (board->seen[cell / 8] >> cell % 8 & 1) {
                return false;
            }
            board->seen[cell / 8] = (uint8_t)(board->seen[cell / 8] | 1u << cell % 8);
        }
    }
    return true;
}

static enum rb_error parse(struct rb_board *board, struct rb_fields *fields) {
    struct rb_blocks *blocks = &board->job.as.blocks;
    struct rb_product *product = &board->job.vectors.product;
    const uint8_t *head = rb_take(fields, 1, 16);
    if (!head) {
        return RB_FINE;
    }
    blocks->n = rb_u32(head);
    product->read_uv = rb_i32(head + 4);
    product->wl_uv = rb_i32(head + 8);
    board->job.coded.repeat = rb_u32(head + 12);
    blocks->blocks = rb_take(fields, blocks->n, 20);
    if (fields->is_short) {
        return RB_FINE;
    }
    if (fields->left) {
        const uint8_t *others = rb_take(fields, 1, 4);
        blocks->others = others ? rb_u32(others) : 0;
    }
    if (!rb_take_levels(fields, blocks->others, &product->body_uv, &product->idle_uv)) {
        rb_refuse(board, RB_BAD_REQUEST, "others ");
        rb_say_number(board, blocks->others);
        rb_say(board, blocks->others > 3 ? " is none of 1 to 3" : ": a level floats");
        return RB_BAD_REQUEST;
    }
    if (fields->is_short) {
        return RB_FINE;
    }
    if (product->read_uv <= 0 || board->job.coded.repeat < 1) {
        return rb_refuse(board, RB_BAD_REQUEST, "READ BLOCKS needs volts above 0 and a repeat");
    }
    memset(board->seen, 0, sizeof board->seen);
    for (uint32_t k = 0; k < blocks->n; k++) {
        struct rb_block block = block_of(blocks, k);
        if (block.rows < 1 || block.columns < 1) {
            return rb_refuse(board, RB_BAD_REQUEST, "a block needs a row and a column");
        }
        if (!rb_is_inside(board, &block)) {
            return rb_refuse(board, RB_RANGE, "a block is off the chip");
        }
        if (!mark(board, &block)) {
            return rb_refuse(board, RB_RANGE, "a block shares a cell with another");
        }
        blocks->cells += block.rows * block.columns;
        blocks->columns += block.columns;
    }
    return RB_FINE;
}

static size_t reply_size(const struct rb_blocks *blocks) {
    return REPLY_HEAD + 8 * (size_t)blocks->n + 16 * (size_t)blocks->columns +
           2 * (size_t)blocks->cells;
}

static struct rb_product product_on(const struct rb_board *board, uint32_t k) {
    struct rb_product product = board->job.vectors.product;
    product.block = block_of(&board->job.as.blocks, k);
    return product;
}

static enum rb_error check(struct rb_board *board) {
    const struct rb_blocks *blocks = &board->job.as.blocks;
    uint32_t most = (board->can->max_message - 32) / 26;
    enum rb_error error = rb_check_others(board, blocks->others);
    if (blocks->cells > most) {
        rb_refuse(board, RB_RANGE, "cells of blocks: ");
        rb_say_number(board, blocks->cells);
        rb_say(board, ", at most ");
        rb_say_number(board, most);
        return RB_RANGE;
    }
    for (uint32_t k = 0; !error && k < blocks->n; k++) {
        struct rb_product product = product_on(board, k);
        error = rb_check_product(board, &product);
        if (!error && !rb_code_fits(board, &product.block)) {
            error = rb_refuse(board, RB_RANGE, "a block is larger than this board decodes");
        }
    }
    return error;
}

static void begin_block(struct rb_board *board) {
    struct rb_product product = product_on(board, board->job.as.blocks.at);
    rb_coded_begin(board, &product, board->job.coded.repeat);
}

static void begin(struct rb_board *board, struct rb_setup *setup) {
    struct rb_blocks *blocks = &board->job.as.blocks;
    (void)setup;
    rb_reply_head(board, blocks->cells, reply_size(blocks));
    if (blocks->n) {
        begin_block(board);
    }
}

/* One column of the block that has been read: scale, uncertainty and codes. */
static void put_column(struct rb_board *board, const struct rb_block *block, uint32_t column) {
    struct rb_blocks *blocks = &board->job.as.blocks;
    uint8_t *scales = board->reply + REPLY_HEAD + 8 * (size_t)blocks->n;
    uint8_t *sigmas = scales + 8 * (size_t)blocks->columns;
    uint8_t *codes = sigmas + 8 * (size_t)blocks->columns + 2 * (size_t)blocks->cells_done;
    bool is_known = board->job.coded.saturated == 0;
    double largest = 0.0, scale, sigma = 0.0;
    for (uint32_t row = 0; is_known && row < block->rows; row++) {
        double value = rb_abs(rb_coded_conductance(board, row, column));
        largest = value > largest ? value : largest;
    }
    scale = largest / 32767.0;
    if (is_known) {
        sigma = rb_coded_sigma(board, column);
        sigma = rb_sqrt(sigma * sigma + scale * scale / 12.0);
    }
    rb_put_f64_of(scales, blocks->columns_done + column, scale);
    rb_put_f64_of(sigmas, blocks->columns_done + column, rb_is_finite(sigma) ? sigma : 0.0);
    for (uint32_t row = 0; row < block->rows; row++) {
        double value = is_known ? rb_coded_conductance(board, row, column) : 0.0;
        int32_t code = scale > 0.0 ? (int32_t)rb_rint(value / scale) : 0;
        code = is_known ? code : -32768;
        rb_put16(codes + 2 * ((size_t)row * block->columns + column), (uint16_t)code);
    }
}

static enum rb_slice slice(struct rb_board *board) {
    struct rb_blocks *blocks = &board->job.as.blocks;
    if (blocks->at < blocks->n) {
        struct rb_block block = block_of(blocks, blocks->at);
        enum rb_slice came_to = rb_coded_slice(board);
        if (came_to != RB_DONE) {
            return came_to;
        }
        rb_put_f64_of(board->reply + REPLY_HEAD, blocks->at, board->job.coded.full_scale_a);
        for (uint32_t column = 0; column < block.columns; column++) {
            put_column(board, &block, column);
        }
        blocks->vectors += board->job.coded.vectors;
        blocks->saturated += board->job.coded.saturated;
        blocks->cells_done += block.rows * block.columns;
        blocks->columns_done += block.columns;
        if (++blocks->at < blocks->n) {
            begin_block(board);
            return RB_GOES_ON;
        }
    }
    rb_put32(board->reply + 24, blocks->vectors);
    rb_put32(board->reply + 28, blocks->saturated);
    return RB_DONE;
}

const struct rb_operation rb_blocks_operation = {parse, check, begin, slice, true};
