/* Limits and the board's own range, checked before anything moves. Every comparison is written so
 * that what is no number fails it. */
#include <string.h>

#include "internal.h"

enum { VALUES = 14, LOW_S = 12, HALF_SELECT = 5 };
static const double FORWARD_V = 0.4; /* of a body, where its junctions begin to conduct */
static const char *const NAMES[VALUES] = {
    "bl_v",      "sl_v",     "wl_v",    "cell_v",       "gate_over_v", "half_select_v", "read_v",
    "current_a", "energy_j", "width_s", "read_width_s", "wait_s",      "lowest conductance_s",
    "highest conductance_s"};

double rb_volts(int32_t uv) { return uv / 1e6; }

static bool is_beyond(double value, double limit) { return !(rb_abs(value) <= limit); }

static enum rb_error check(struct rb_board *board, uint32_t cell, double value, double limit,
                           const char *what, const char *unit) {
    if (!is_beyond(value, limit)) {
        return RB_FINE;
    }
    board->text[0] = 0;
    rb_say_cell(board, cell);
    rb_say(board, ": ");
    rb_say(board, what);
    rb_say(board, " ");
    rb_say_number(board, value);
    rb_say(board, unit);
    rb_say(board, " is beyond the limit of ");
    rb_say_number(board, limit);
    rb_say(board, unit);
    return RB_LIMIT;
}

/* Volts of a step's lines; where one floats, or has no level, it is taken as 0 V. */
struct levels {
    double bl, sl, wl, drop, body, idle;
    bool has_bl, has_sl, has_wl, has_body, has_idle;
};

static struct levels levels_of(const struct rb_shot *shot) {
    struct levels at;
    at.has_bl = shot->uv[RB_BL] != RB_FLOATING;
    at.has_sl = shot->uv[RB_SL] != RB_FLOATING;
    at.has_wl = shot->uv[RB_WL] != RB_FLOATING;
    at.bl = at.has_bl ? rb_volts(shot->uv[RB_BL]) : 0.0;
    at.sl = at.has_sl ? rb_volts(shot->uv[RB_SL]) : 0.0;
    at.wl = at.has_wl ? rb_volts(shot->uv[RB_WL]) : 0.0;
    at.drop = at.has_bl && at.has_sl ? at.bl - at.sl : 0.0;
    at.has_body = shot->body_uv != RB_NO_LEVEL;
    at.has_idle = shot->idle_uv != RB_NO_LEVEL;
    at.body = at.has_body ? rb_volts(shot->body_uv) : 0.0;
    at.idle = at.has_idle ? rb_volts(shot->idle_uv) : 0.0;
    return at;
}

static double lower(double a, double b) { return a < b ? a : b; }
static double higher(double a, double b) { return a > b ? a : b; }

static bool has_selectors(const struct rb_board *board) { return board->can->cell != RB_1R; }

static bool is_pmos(const struct rb_board *board) { return board->can->cell == RB_1T1R_PMOS; }

/* Volts as an NMOS selector would see them: PMOS ones follow the same rules, all signs changed. */
static double seen(const struct rb_board *board, double volts) {
    return is_pmos(board) ? -volts : volts;
}

/* How far a gate stands beyond the lower end in the direction that opens it. */
static enum rb_error check_gate(struct rb_board *board, uint32_t cell, double gate, double lowest,
                                const char *nmos, const char *pmos) {
    return check(board, cell, higher(seen(board, gate) - lowest, 0.0), board->limits.gate_over_v,
                 is_pmos(board) ? pmos : nmos, " V");
}

bool rb_is_pulse(const struct rb_board *board, const struct rb_shot *shot) {
    return is_beyond(levels_of(shot).drop, board->limits.read_v);
}

static enum rb_error check_selected(struct rb_board *board, const struct rb_shot *shot) {
    const struct rb_limits *limits = &board->limits;
    struct levels at = levels_of(shot);
    double bl = seen(board, at.bl), sl = seen(board, at.sl);
    double ends = at.has_bl && at.has_sl ? lower(bl, sl) : at.has_bl ? bl : sl;
    uint32_t cell = shot->cell;
    enum rb_error error = RB_FINE;
    error = error ? error : check(board, cell, at.bl, limits->bl_v, "BL", " V");
    error = error ? error : check(board, cell, at.sl, limits->sl_v, "SL", " V");
    error = error ? error : check(board, cell, at.wl, limits->wl_v, "WL", " V");
    if (!error && !at.has_sl) {
        error = check(board, cell, at.bl, limits->read_v, "BL beside a floating line", " V");
    }
    if (!error && !at.has_bl) {
        error = check(board, cell, at.sl, limits->read_v, "SL beside a floating line", " V");
    }
    error = error ? error : check(board, cell, at.drop, limits->cell_v, "BL - SL", " V");
    if (!error && at.has_wl && has_selectors(board)) {
        error = at.has_body
                    ? check_gate(board, cell, at.wl, lower(ends, seen(board, at.body)),
                                 "WL above the lower of BL, SL and body",
                                 "WL below the higher of BL, SL and body")
                    : check_gate(board, cell, at.wl, ends, "WL above the lower of BL and SL",
                                 "WL below the higher of BL and SL");
    }
    return error;
}

/* Level of the unselected bit lines of a 1T1R array. */
static double unselected_v(const struct levels *at, uint8_t scheme) {
    switch (scheme) {
    case RB_INHIBIT:
        return at->sl;
    case RB_HALF:
        return (at->bl + at->sl) / 2.0;
    case RB_THIRD:
        return at->sl + (at->bl - at->sl) / 3.0;
    default:
        return 0.0;
    }
}

/* What a step says of bodies and of word lines that are not selected. */
static enum rb_error check_others(struct rb_board *board, const struct rb_shot *shot,
                                  uint8_t scheme) {
    const struct rb_limits *limits = &board->limits;
    struct levels at = levels_of(shot);
    double bl = seen(board, at.bl), sl = seen(board, at.sl), body = seen(board, at.body);
    /* Lines that no cell of the batch is on stand at 0 V, as one that floats does here. */
    double lowest = lower(lower(lower(bl, sl), seen(board, unselected_v(&at, scheme))), 0.0);
    enum rb_error error = RB_FINE;
    if (!at.has_body && !at.has_idle) {
        return RB_FINE;
    }
    if (at.has_body) {
        error = check(board, shot->cell, at.body, limits->body_v, "body", " V");
        error = error ? error
                      : check(board, shot->cell, higher(body - lowest, 0.0), limits->body_over_v,
                              is_pmos(board) ? "body below the highest line"
                                             : "body above the lowest line",
                              " V");
        lowest = lower(lowest, body);
    }
    error = error ? error : check(board, shot->cell, at.idle, limits->wl_v, "unselected WL", " V");
    return error ? error
                 : check_gate(board, shot->cell, at.idle, lowest,
                              "unselected WL above the lowest line",
                              "unselected WL below the highest line");
}

/* |V| across a cell of another row between these lines, where its gate at `closed` lets it through. */
static double opened_v(double line, double source, double closed) {
    return lower(line, source) < closed ? rb_abs(line - source) : 0.0;
}

/* |V| across cells of an array with selectors that can conduct beside the selected one: those of the
 * same row; of other rows, those of the same column and all others. */
struct beside {
    double row, column, apart;
};

static struct beside beside_v(const struct rb_board *board, const struct levels *at,
                              uint8_t scheme) {
    double bl = seen(board, at->bl), sl = seen(board, at->sl), closed = seen(board, at->idle);
    double others = seen(board, unselected_v(at, scheme));
    double source = board->can->source_lines == 2 ? sl : 0.0;
    struct beside found = {0.0, 0.0, 0.0};
    if (board->can->source_lines == 1) {
        found.column = opened_v(bl, sl, closed);
        return found;
    }
    if (!at->has_wl || seen(board, at->wl) > lower(others, sl)) {
        found.row = rb_abs(others - sl);
    }
    found.column = opened_v(bl, source, closed);
    found.apart = opened_v(others, source, closed);
    if (scheme == RB_FLOAT_OTHERS) {
        found.apart = higher(found.apart, higher(found.column, opened_v(sl, source, closed)));
    }
    return found;
}

/* Largest |V| across a cell that shares a line with the selected one and can conduct. */
static double half_selected_v(const struct rb_board *board, const struct levels *at,
                              uint8_t scheme) {
    double drop = rb_abs(at->bl - at->sl), ends = higher(rb_abs(at->bl), rb_abs(at->sl));
    struct beside found;
    if (has_selectors(board)) {
        found = beside_v(board, at, scheme);
        return higher(found.row, higher(found.column, found.apart));
    }
    switch (scheme) {
    case RB_HALF:
        return drop / 2.0;
    case RB_THIRD:
        return drop / 3.0;
    case RB_GROUNDED:
        return ends;
    case RB_FLOAT_OTHERS:
        return higher(ends, drop);
    default:
        return drop;
    }
}

void rb_leaves(const struct rb_board *board, const struct rb_shot *shot, bool *column, bool *apart) {
    struct levels at = levels_of(shot);
    struct beside found = {0.0, 0.0, 0.0};
    if (has_selectors(board)) {
        found = beside_v(board, &at, board->job.scheme);
    }
    *column = is_beyond(found.column, board->limits.read_v);
    *apart = is_beyond(found.apart, board->limits.read_v);
}

/* By what width and energy are bounded: the most that stands across the cell or half-selected ones. */
static double stress_v(const struct rb_board *board, const struct rb_shot *shot) {
    struct levels at = levels_of(shot);
    return higher(rb_abs(at.drop), half_selected_v(board, &at, board->job.scheme));
}

bool rb_is_read(const struct rb_board *board, const struct rb_shot *shot) {
    return !is_beyond(stress_v(board, shot), board->limits.read_v);
}

enum rb_error rb_check_half_select(struct rb_board *board, const struct rb_shot *shot) {
    struct levels at = levels_of(shot);
    return check(board, shot->cell, half_selected_v(board, &at, board->job.scheme),
                 board->limits.half_select_v, "a half-selected cell's", " V");
}

static enum rb_error check_energy(struct rb_board *board, const struct rb_shot *shot,
                                  double compliance_a) {
    const struct rb_limits *limits = &board->limits;
    double drop = stress_v(board, shot);
    double current_a = rb_is_nan(compliance_a) ? limits->current_a : compliance_a;
    if (!(board->abilities & RB_HAS_COMPLIANCE)) {
        current_a = higher(current_a, drop * limits->high_s);
    }
    return check(board, shot->cell,
                 rb_is_read(board, shot) ? 0.0 : drop * current_a * ((double)shot->width_ps / 1e12),
                 limits->energy_j, "energy of a pulse", " J");
}

/* Without `run` lines are driven one after the other: the body stands alone first and last, then the
 * gate beside it, and the source line before the bit line rises and after it has fallen. */
static enum rb_error check_way(struct rb_board *board, const struct rb_shot *shot,
                               const struct levels *at) {
    const struct rb_limits *limits = &board->limits;
    enum rb_error error = RB_FINE;
    if (board->hooks->run) {
        return RB_FINE;
    }
    if (at->has_body) {
        error = check_gate(board, shot->cell, 0.0, seen(board, at->body),
                           "gates at 0 V above the body, which stands alone first,",
                           "gates at 0 V below the body, which stands alone first,");
    }
    if (!error && at->has_wl && has_selectors(board)) {
        error = check_gate(board, shot->cell, at->wl, 0.0, "WL above lines that are still at 0 V",
                           "WL below lines that are still at 0 V");
    }
    if (!error && at->bl * at->sl > 0.0) {
        error = check(board, shot->cell, at->sl, limits->read_v,
                      "SL, which stands alone before BL rises,", " V");
    }
    return error;
}

enum rb_error rb_check_shot(struct rb_board *board, const struct rb_shot *shot,
                            double compliance_a) {
    const struct rb_envelope *can = board->can;
    struct levels at = levels_of(shot);
    enum rb_error error = check_selected(board, shot);
    error = error ? error : check_others(board, shot, board->job.scheme);
    if (!error && has_selectors(board) && can->source_lines != 1) {
        error = check(board, shot->cell, unselected_v(&at, board->job.scheme), board->limits.bl_v,
                      "unselected BL", " V");
    }
    error = error ? error : check_way(board, shot, &at);
    error = error ? error : rb_check_half_select(board, shot);
    error = error ? error : check_energy(board, shot, compliance_a);
    return error ? error : rb_check_reach(board, shot);
}

enum rb_error rb_check_width(struct rb_board *board, const struct rb_shot *shot, bool all_read) {
    const struct rb_envelope *can = board->can;
    if (shot->width_ps < can->width_low_ps || shot->width_ps > can->width_high_ps) {
        rb_refuse(board, RB_RANGE, "width ");
        rb_say_number(board, (double)shot->width_ps / 1e12);
        rb_say(board, " s, ");
        rb_say_number(board, (double)can->width_low_ps / 1e12);
        rb_say(board, " to ");
        rb_say_number(board, (double)can->width_high_ps / 1e12);
        rb_say(board, " s");
        return RB_RANGE;
    }
    return check(board, shot->cell, (double)shot->width_ps / 1e12,
                 all_read ? board->limits.read_width_s : board->limits.width_s, "width", " s");
}

enum rb_error rb_check_reach(struct rb_board *board, const struct rb_shot *shot) {
    static const char *const LINES[5] = {"BL ", "SL ", "WL ", "body ", "unselected WL "};
    const int32_t uv[5] = {shot->uv[RB_BL], shot->uv[RB_SL], shot->uv[RB_WL], shot->body_uv,
                           shot->idle_uv};
    for (int line = 0; line < 5; line++) {
        const struct rb_range_uv *range = &board->can->range[line < RB_WL ? line : RB_WL];
        if (uv[line] != RB_FLOATING && (uv[line] < range->low || uv[line] > range->high)) {
            rb_refuse(board, RB_RANGE, LINES[line]);
            rb_say_number(board, rb_volts(uv[line]));
            rb_say(board, " V, drivers reach ");
            rb_say_number(board, rb_volts(range->low));
            rb_say(board, " to ");
            rb_say_number(board, rb_volts(range->high));
            rb_say(board, " V");
            return RB_RANGE;
        }
    }
    return RB_FINE;
}

enum rb_error rb_check_window(struct rb_board *board, uint32_t cell, const char *what, double value,
                              bool may_be_infinite) {
    bool is_infinite = value > 0.0 && !rb_is_nan(value) && !rb_is_finite(value);
    if ((value >= board->limits.low_s && value <= board->limits.high_s) ||
        (may_be_infinite && is_infinite)) {
        return RB_FINE;
    }
    board->text[0] = 0;
    rb_say_cell(board, cell);
    rb_say(board, ": target ");
    rb_say(board, what);
    rb_say(board, " ");
    rb_say_number(board, value);
    rb_say(board, " S is outside the limits of ");
    rb_say_number(board, board->limits.low_s);
    rb_say(board, " to ");
    rb_say_number(board, board->limits.high_s);
    rb_say(board, " S");
    return RB_LIMIT;
}

bool rb_is_inside(const struct rb_board *board, const struct rb_block *block) {
    const struct rb_envelope *can = board->can;
    return block->tile < can->tiles && block->row < can->rows && block->column < can->columns &&
           block->rows >= 1 && block->rows <= can->rows - block->row && block->columns >= 1 &&
           block->columns <= can->columns - block->column;
}

/* All cells of the block are selected, with inputs of both signs; every other sees no more. */
enum rb_error rb_check_product(struct rb_board *board, const struct rb_product *product) {
    const struct rb_envelope *can = board->can;
    const struct rb_block *block = &product->block;
    struct rb_shot shot;
    enum rb_error error;
    memset(&shot, 0, sizeof shot);
    shot.body_uv = product->body_uv;
    shot.idle_uv = product->idle_uv;
    shot.cell = (block->tile * can->rows + block->row) * can->columns + block->column;
    shot.uv[RB_WL] = product->wl_uv;
    error = check(board, shot.cell, rb_volts(product->read_uv), board->limits.read_v,
                  "multiply read voltage", " V");
    /* No level stands for a gate that floats here. */
    error = error ? error
                  : check(board, shot.cell, rb_volts(product->wl_uv), board->limits.wl_v, "WL", " V");
    for (int sign = -1; !error && sign <= 1; sign += 2) {
        struct levels at;
        shot.uv[RB_SL] = sign * product->read_uv;
        at = levels_of(&shot);
        error = check_selected(board, &shot);
        error = error ? error : check_others(board, &shot, RB_INHIBIT);
        if (!error && !board->hooks->multiply) {
            error = check_way(board, &shot, &at);
        }
        error = error ? error : rb_check_reach(board, &shot);
    }
    return error;
}

enum rb_error rb_check_setting(struct rb_board *board, uint8_t scheme, double compliance_a) {
    const struct rb_envelope *can = board->can;
    if (scheme > RB_THIRD) {
        return rb_refuse(board, RB_BAD_REQUEST, "the scheme is not one of 0 to 4");
    }
    if (!(can->schemes >> scheme & 1u)) {
        return rb_refuse(board, RB_RANGE, "this board does not have the scheme");
    }
    if (rb_is_nan(compliance_a)) {
        return RB_FINE;
    }
    if (!(board->abilities & RB_HAS_COMPLIANCE)) {
        return rb_refuse(board, RB_RANGE, "this board has no compliance");
    }
    if (!(compliance_a > 0.0 && compliance_a <= board->limits.current_a)) {
        rb_refuse(board, RB_LIMIT, "compliance ");
        rb_say_number(board, compliance_a);
        rb_say(board, " A must lie above 0 and at most at the limit of ");
        rb_say_number(board, board->limits.current_a);
        rb_say(board, " A");
        return RB_LIMIT;
    }
    return RB_FINE;
}

enum rb_error rb_cells(struct rb_board *board, const uint8_t *cells, uint32_t n) {
    const struct rb_envelope *can = board->can;
    memset(board->seen, 0, sizeof board->seen);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t cell = rb_u32_of(cells, k);
        if (cell >= can->tiles * can->rows * can->columns || cell >= RB_CHIP_CELLS) {
            rb_refuse(board, RB_RANGE, "cell index ");
            rb_say_number(board, cell);
            rb_say(board, " is off the chip");
            return RB_RANGE;
        }
        if (board->seen[cell / 8] >> cell % 8 & 1) {
            board->text[0] = 0;
            rb_say_cell(board, cell);
            rb_say(board, " is there twice");
            return RB_BAD_REQUEST;
        }
        board->seen[cell / 8] = (uint8_t)(board->seen[cell / 8] | 1u << cell % 8);
    }
    return RB_FINE;
}

enum rb_error rb_read_limits(struct rb_board *board, const uint8_t *payload, size_t size,
                             struct rb_limits *limits) {
    double values[VALUES], own[VALUES];
    if (size != 8 * VALUES + 8) {
        return rb_refuse(board, RB_BAD_REQUEST, "LIMITS takes 120 bytes or none");
    }
    memcpy(own, &board->own, sizeof own);
    limits->pulses_per_cell = rb_u64(payload + 8 * VALUES);
    if (limits->pulses_per_cell < 1 || limits->pulses_per_cell > board->own.pulses_per_cell) {
        return rb_refuse(board, RB_LIMIT, "limit pulses_per_cell is 0 or beyond this board's own");
    }
    for (uint32_t k = 0; k < VALUES; k++) {
        double value = values[k] = rb_f64_of(payload, k);
        bool is_value = rb_is_finite(value) &&
                        (k == HALF_SELECT || k == LOW_S ? value >= 0.0 : value > 0.0);
        if (!is_value || (k == LOW_S ? value < own[k] : value > own[k])) {
            rb_refuse(board, RB_LIMIT, "limit ");
            rb_say(board, NAMES[k]);
            rb_say(board, " ");
            rb_say_number(board, value);
            rb_say(board, is_value ? " is beyond this board's own " : " is no limit; at most ");
            rb_say_number(board, own[k]);
            return RB_LIMIT;
        }
    }
    memcpy(limits, values, sizeof values);
    if (!(limits->low_s < limits->high_s)) {
        return rb_refuse(board, RB_LIMIT, "limit conductance_s must be lowest, highest");
    }
    return RB_FINE;
}

void rb_put_limits(uint8_t *at, const struct rb_limits *limits) {
    double values[VALUES];
    memcpy(values, limits, sizeof values);
    for (uint32_t k = 0; k < VALUES; k++) {
        rb_put_f64_of(at, k, values[k]);
    }
    rb_put64(at + 8 * VALUES, limits->pulses_per_cell);
}

enum rb_error rb_read_body_limits(struct rb_board *board, const uint8_t *payload, size_t size,
                                  struct rb_limits *limits) {
    static const char *const BODY[2] = {"body_v ", "body_over_v "};
    const double own[2] = {board->own.body_v, board->own.body_over_v};
    if (size != 16) {
        return rb_refuse(board, RB_BAD_REQUEST, "BODY LIMITS takes 16 bytes or none");
    }
    for (uint32_t k = 0; k < 2; k++) {
        double value = rb_f64_of(payload, k);
        if (k == 1 && value > FORWARD_V) {
            rb_refuse(board, RB_LIMIT, "limit body_over_v ");
            rb_say_number(board, value);
            rb_say(board, " V: beyond ");
            rb_say_number(board, FORWARD_V);
            rb_say(board, " V a body's junctions conduct");
            return RB_LIMIT;
        }
        if (!(value >= 0.0 && value <= own[k])) {
            rb_refuse(board, RB_LIMIT, "limit ");
            rb_say(board, BODY[k]);
            rb_say_number(board, value);
            rb_say(board, value > own[k] ? " is beyond this board's own "
                                         : " is no limit; from 0 up, at most ");
            rb_say_number(board, own[k]);
            return RB_LIMIT;
        }
    }
    limits->body_v = rb_f64_of(payload, 0);
    limits->body_over_v = rb_f64_of(payload, 1);
    return RB_FINE;
}

void rb_put_body_limits(uint8_t *at, const struct rb_limits *limits) {
    rb_put_f64_of(at, 0, limits->body_v);
    rb_put_f64_of(at, 1, limits->body_over_v);
}
