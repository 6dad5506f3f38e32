/* Pulses that one operation gives cells: selected ones, and those of other rows whose gates a step
 * opens. No cell takes more of them than its whole life. */
#include <string.h>

#include "internal.h"

/* Sums over the selected cells of one tile. */
static void sum_tile(struct rb_board *board, const uint8_t *cells, uint32_t n, uint32_t tile,
                     rb_wear_of *wear_of) {
    const struct rb_envelope *can = board->can;
    struct rb_sums *sums = &board->sums;
    memset(sums, 0, sizeof *sums);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t cell = rb_u32_of(cells, k);
        struct rb_wear wear;
        if (cell / can->columns / can->rows != tile) {
            continue;
        }
        wear = wear_of(board, k);
        sums->column[cell % can->columns] += wear.column;
        sums->apart_column[cell % can->columns] += wear.apart;
        sums->apart_row[cell / can->columns % can->rows] += wear.apart;
        sums->apart += wear.apart;
    }
}

static enum rb_error check_cell(struct rb_board *board, uint32_t cell, const struct rb_wear *wear) {
    const struct rb_envelope *can = board->can;
    const struct rb_sums *sums = &board->sums;
    uint32_t row = cell / can->columns % can->rows, column = cell % can->columns;
    /* Of the others: all of this column, all that are in neither its row nor its column. */
    uint64_t beside = sums->column[column] - wear->column + sums->apart - sums->apart_row[row] -
                      sums->apart_column[column] + wear->apart;
    uint64_t pulses = wear->own + beside;
    if (pulses <= board->limits.pulses_per_cell) {
        return RB_FINE;
    }
    board->text[0] = 0;
    rb_say_cell(board, cell);
    rb_say(board, ": ");
    rb_say_number(board, (double)pulses);
    rb_say(board, " pulses in one operation are beyond the limit pulses_per_cell of ");
    rb_say_number(board, (double)board->limits.pulses_per_cell);
    return RB_LIMIT;
}

enum rb_error rb_check_wear(struct rb_board *board, const uint8_t *cells, uint32_t n,
                            rb_wear_of *wear_of) {
    static const struct rb_wear none = {0, 0, 0};
    const struct rb_envelope *can = board->can;
    uint32_t size = can->rows * can->columns;
    uint64_t own = 0, left = 0;
    enum rb_error error = RB_FINE;
    for (uint32_t k = 0; k < n; k++) {
        struct rb_wear wear = wear_of(board, k);
        own = wear.own > own ? wear.own : own;
        left += wear.column + wear.apart;
    }
    if (own + left <= board->limits.pulses_per_cell) {
        return RB_FINE; /* no cell can have more, wherever it is */
    }
    for (uint32_t tile = 0; !error && tile < can->tiles; tile++) {
        sum_tile(board, cells, n, tile, wear_of);
        for (uint32_t k = 0; !error && k < n; k++) {
            uint32_t cell = rb_u32_of(cells, k);
            if (cell / size == tile) {
                struct rb_wear wear = wear_of(board, k);
                error = check_cell(board, cell, &wear);
            }
        }
        /* `seen` still marks the selected ones. */
        for (uint32_t cell = tile * size; !error && cell < (tile + 1) * size; cell++) {
            if (!(board->seen[cell / 8] >> cell % 8 & 1)) {
                error = check_cell(board, cell, &none);
            }
        }
    }
    return error;
}
