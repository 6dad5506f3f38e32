/* PROGRAM: read-verify-write of each cell to its window, read singly or by codes. */
#include <string.h>

#include "internal.h"

enum { HEAD = 116, REPLY_HEAD = 24 };
static const uint32_t MOST_CONFIRMS = 1u << 20;

static void read_ramp(struct rb_ramp *ramp, const uint8_t *at) {
    ramp->start = rb_i32(at);
    ramp->stop = rb_i32(at + 4);
    ramp->step = rb_i32(at + 8);
    ramp->starts = NULL;
}

static struct rb_ramp *ramp_of(struct rb_program *program, int k) {
    struct rb_train *train = &program->train[k / 2];
    return k % 2 ? &train->gate : &train->amplitude;
}

static bool floats(const struct rb_ramp *ramp, uint32_t n) {
    for (uint32_t k = 0; ramp->starts && k < n; k++) {
        if ((int32_t)rb_u32_of(ramp->starts, k) == RB_FLOATING) {
            return true;
        }
    }
    return ramp->stop == RB_FLOATING || (!ramp->starts && ramp->start == RB_FLOATING);
}

static bool has_windows(const struct rb_program *program) {
    for (uint32_t k = 0; k < program->n; k++) {
        if (!(rb_f64_of(program->low, k) <= rb_f64_of(program->high, k))) {
            return false;
        }
    }
    return true;
}

static enum rb_error parse(struct rb_board *board, struct rb_fields *fields) {
    struct rb_job *job = &board->job;
    struct rb_program *program = &job->as.program;
    const uint8_t *head = rb_take(fields, 1, HEAD - 4);
    if (!head) {
        return RB_FINE;
    }
    program->n = rb_u32(head);
    program->confirm = rb_u32(head + 4);
    program->max_reversals = rb_u32(head + 8);
    job->scheme = head[12];
    job->compliance_a = rb_f64(head + 16);
    for (int polarity = 0; polarity < 2; polarity++) {
        const uint8_t *train = head + 24 + 32 * polarity;
        program->train[polarity].width_ps = rb_u64(train);
        read_ramp(&program->train[polarity].amplitude, train + 8);
        read_ramp(&program->train[polarity].gate, train + 20);
    }
    program->others = head[15];
    program->read.heads = head + 88;
    program->read.count = 1;
    program->read.n = program->n;
    program->cells = rb_take(fields, program->n, 4);
    program->low = rb_take(fields, program->n, 8);
    program->high = rb_take(fields, program->n, 8);
    program->budget = rb_take(fields, program->n, 4);
    for (int k = 0; k < 4; k++) {
        if (head[13] >> k & 1) {
            ramp_of(program, k)->starts = rb_take(fields, program->n, 4);
        }
    }
    for (int polarity = 0; polarity < 2; polarity++) {
        struct rb_train *train = &program->train[polarity];
        uint32_t bits = program->others >> 2 * polarity & 3u;
        if (!rb_take_levels(fields, bits, &train->body_uv, &train->idle_uv)) {
            return rb_refuse(board, RB_BAD_REQUEST, "PROGRAM: a level of others floats");
        }
    }
    if (fields->is_short) {
        return RB_FINE;
    }
    if (!rb_steps_take(&program->read, fields)) {
        return rb_refuse(board, RB_BAD_REQUEST, "the read step makes no sense");
    }
    if (fields->is_short) {
        return RB_FINE;
    }
    program->is_coded = head[14] == 1;
    if (head[14] > 1 || job->scheme > RB_THIRD || program->confirm > MOST_CONFIRMS ||
        program->others > 15 || rb_step_measure(&program->read, 0) != RB_CURRENT ||
        (program->is_coded && program->read.heads[9])) {
        return rb_refuse(board, RB_BAD_REQUEST,
                         "PROGRAM: verify, scheme, confirm, others or read step make no sense");
    }
    for (int k = 0; k < 4; k++) {
        if (floats(ramp_of(program, k), program->n)) {
            return rb_refuse(board, RB_BAD_REQUEST, "PROGRAM: a ramp floats");
        }
    }
    if (!has_windows(program)) {
        return rb_refuse(board, RB_BAD_REQUEST, "PROGRAM: every window needs low <= high");
    }
    return rb_cells(board, program->cells, program->n);
}

static size_t reply_size(const struct rb_program *program) {
    return REPLY_HEAD + 22 * (size_t)program->n + (program->is_coded ? 4 : 0);
}

static int32_t start_of(const struct rb_ramp *ramp, uint32_t place) {
    return ramp->starts ? (int32_t)rb_u32_of(ramp->starts, place) : ramp->start;
}

static int32_t level(const struct rb_ramp *ramp, uint32_t k, uint32_t place) {
    int64_t turns = k < 0x7FFFFFFFu ? k : 0x7FFFFFFF;
    int64_t at = start_of(ramp, place) + turns * ramp->step;
    bool is_past = ramp->step >= 0 ? at > ramp->stop : at < ramp->stop;
    return is_past ? ramp->stop : (int32_t)at;
}

static void pulse(const struct rb_board *board, uint32_t place, int polarity, int32_t amplitude,
                  int32_t gate, struct rb_shot *shot) {
    const struct rb_program *program = &board->job.as.program;
    const struct rb_train *train = &program->train[polarity > 0 ? 0 : 1];
    shot->cell = rb_u32_of(program->cells, place);
    shot->width_ps = train->width_ps;
    shot->body_uv = train->body_uv;
    shot->idle_uv = train->idle_uv;
    shot->measure = RB_NOTHING;
    shot->uv[RB_BL] = polarity > 0 ? amplitude : 0;
    shot->uv[RB_SL] = polarity > 0 ? 0 : amplitude;
    shot->uv[RB_WL] = gate;
    shot->is_pulse = rb_is_pulse(board, shot);
}

/* Pulse k = 0 ... 7 at the ends of the ramps: no pulse of a cell goes further on any line. */
static void extreme(const struct rb_board *board, uint32_t place, int k, struct rb_shot *shot) {
    const struct rb_train *train = &board->job.as.program.train[k / 4];
    int32_t amplitude = k & 2 ? train->amplitude.stop : start_of(&train->amplitude, place);
    int32_t gate = k & 1 ? train->gate.stop : start_of(&train->gate, place);
    pulse(board, place, k < 4 ? 1 : -1, amplitude, gate, shot);
}

static void read_shot(const struct rb_board *board, uint32_t place, struct rb_shot *shot) {
    const struct rb_program *program = &board->job.as.program;
    rb_step_shot(board, &program->read, 0, place, rb_u32_of(program->cells, place), shot);
}

/* Between the ends of the ramps a gate may open that is closed at each of them, so half-selected
 * cells are looked at with open gates too. */
static enum rb_error check_pulses(struct rb_board *board, uint32_t place) {
    enum rb_error error = RB_FINE;
    for (int k = 0; !error && k < 8; k++) {
        struct rb_shot shot;
        extreme(board, place, k, &shot);
        error = rb_check_shot(board, &shot, board->job.compliance_a);
        error = error ? error : rb_check_width(board, &shot, rb_is_read(board, &shot));
        shot.uv[RB_WL] = RB_FLOATING;
        error = error ? error : rb_check_half_select(board, &shot);
    }
    return error;
}

/* A pulse within the read limit is none: it would be counted here and by no record. */
static bool is_stronger_than_reads(const struct rb_board *board) {
    const struct rb_program *program = &board->job.as.program;
    bool gives = false;
    for (uint32_t k = 0; k < program->n; k++) {
        gives = gives || rb_u32_of(program->budget, k);
    }
    for (int polarity = 0; gives && polarity < 2; polarity++) {
        const struct rb_ramp *ramp = &program->train[polarity].amplitude;
        double stop = rb_volts(ramp->stop), limit = board->limits.read_v;
        for (uint32_t k = 0; k < program->n; k++) {
            double start = rb_volts(start_of(ramp, k));
            if (!((start > limit && stop > limit) || (start < -limit && stop < -limit))) {
                return false;
            }
        }
    }
    return true;
}

static struct rb_wear wear_of(const struct rb_board *board, uint32_t place) {
    uint64_t budget = rb_u32_of(board->job.as.program.budget, place);
    struct rb_wear wear = {budget, 0, 0};
    for (int k = 0; k < 8; k++) {
        struct rb_shot shot;
        bool column, apart;
        extreme(board, place, k, &shot);
        rb_leaves(board, &shot, &column, &apart);
        wear.column = column ? budget : wear.column;
        /* Between the ends of a ramp a level may open others, for no more than those of the column. */
        apart = apart || (column && shot.idle_uv != RB_NO_LEVEL);
        wear.apart = apart ? budget : wear.apart;
    }
    return wear;
}

/* No reading stresses any cell, selected or not. */
static bool reads_alone(const struct rb_board *board) {
    for (uint32_t k = 0; k < board->job.as.program.n; k++) {
        struct rb_shot shot;
        read_shot(board, k, &shot);
        if (!rb_is_read(board, &shot)) {
            return false;
        }
    }
    return true;
}

static enum rb_error check_cell(struct rb_board *board, uint32_t place) {
    const struct rb_program *program = &board->job.as.program;
    uint32_t cell = rb_u32_of(program->cells, place);
    struct rb_shot shot;
    enum rb_error error =
        rb_check_window(board, cell, "low_s", rb_f64_of(program->low, place), false);
    error = error ? error
                  : rb_check_window(board, cell, "high_s", rb_f64_of(program->high, place), true);
    error = error ? error : check_pulses(board, place);
    read_shot(board, place, &shot);
    error = error ? error : rb_check_shot(board, &shot, board->job.compliance_a);
    return error ? error : rb_check_width(board, &shot, true);
}

/* The smallest rectangle around those cells of a tile that wait for a reading, or around all. */
static bool around(const struct rb_board *board, uint32_t tile, bool all, struct rb_block *block) {
    const struct rb_envelope *can = board->can;
    const struct rb_program *program = &board->job.as.program;
    uint32_t low_row = can->rows, high_row = 0, low_column = can->columns, high_column = 0;
    for (uint32_t k = 0; k < program->n; k++) {
        const struct rb_progress *progress = &board->progress[k];
        uint32_t cell = rb_u32_of(program->cells, k);
        uint32_t row = cell / can->columns % can->rows, column = cell % can->columns;
        if (cell / can->columns / can->rows == tile &&
            (all || (progress->is_active && progress->next == 0))) {
            low_row = row < low_row ? row : low_row;
            high_row = row > high_row ? row : high_row;
            low_column = column < low_column ? column : low_column;
            high_column = column > high_column ? column : high_column;
        }
    }
    block->tile = tile;
    block->row = low_row;
    block->rows = high_row + 1 - low_row;
    block->column = low_column;
    block->columns = high_column + 1 - low_column;
    return low_row < can->rows;
}

/* The read step as a product: its levels on all rows of a block, without one yet. */
static struct rb_product coded_product(const struct rb_board *board) {
    struct rb_product product;
    struct rb_shot shot;
    int64_t drop;
    memset(&product, 0, sizeof product);
    read_shot(board, 0, &shot);
    drop = shot.uv[RB_BL] == RB_FLOATING || shot.uv[RB_SL] == RB_FLOATING
               ? 0
               : (int64_t)shot.uv[RB_BL] - shot.uv[RB_SL];
    product.read_uv = (int32_t)(drop < 0 ? -drop : drop);
    product.wl_uv = shot.uv[RB_WL] == RB_FLOATING ? 0 : shot.uv[RB_WL];
    product.body_uv = shot.body_uv;
    product.idle_uv = shot.idle_uv;
    return product;
}

static enum rb_error check_coded(struct rb_board *board) {
    enum rb_error error = RB_FINE;
    struct rb_product product;
    if (!(board->abilities & RB_READ_BLOCKS)) {
        return rb_refuse(board, RB_RANGE, "this board verifies by no codes");
    }
    if (!board->job.as.program.n) {
        return RB_FINE;
    }
    product = coded_product(board);
    if (product.read_uv <= 0) {
        return rb_refuse(board, RB_BAD_REQUEST, "a coded verify needs read volts");
    }
    for (uint32_t tile = 0; !error && tile < board->can->tiles; tile++) {
        if (around(board, tile, true, &product.block)) {
            error = rb_check_product(board, &product);
            if (!error && !rb_code_fits(board, &product.block)) {
                error = rb_refuse(board, RB_RANGE, "more cells than this board decodes");
            }
        }
    }
    return error;
}

static enum rb_error check(struct rb_board *board) {
    const struct rb_program *program = &board->job.as.program;
    const struct rb_envelope *can = board->can;
    enum rb_error error = rb_check_setting(board, board->job.scheme, board->job.compliance_a);
    if (error) {
        return error;
    }
    if (program->n > can->max_cells || program->n > RB_MAX_CELLS ||
        reply_size(program) > can->max_message) {
        rb_refuse(board, RB_RANGE, "cells: ");
        rb_say_number(board, program->n);
        rb_say(board, ", at most ");
        rb_say_number(board, can->max_cells);
        return RB_RANGE;
    }
    error = rb_check_steps(board, &program->read);
    error = error ? error : rb_check_others(board, program->others | program->others >> 2);
    if (!error && !is_stronger_than_reads(board)) {
        error = rb_refuse(board, RB_LIMIT, "write-verify pulses must pass the read limit");
    }
    if (!error && !reads_alone(board)) {
        error = rb_refuse(board, RB_LIMIT, "the read of a write-verify is above the read limit on a "
                                           "cell, selected or not");
    }
    for (uint32_t k = 0; !error && k < program->n; k++) {
        error = check_cell(board, k);
    }
    error = error ? error : rb_check_wear(board, program->cells, program->n, wear_of);
    return error || !program->is_coded ? error : check_coded(board);
}

static void begin(struct rb_board *board, struct rb_setup *setup) {
    struct rb_job *job = &board->job;
    struct rb_program *program = &job->as.program;
    uint8_t *counts = board->reply + REPLY_HEAD + 8 * (size_t)program->n;
    rb_reply_head(board, program->n, reply_size(program));
    memset(counts, 0, 14 * (size_t)program->n + (program->is_coded ? 4 : 0));
    for (uint32_t k = 0; k < program->n; k++) {
        rb_put_f64_of(board->reply + REPLY_HEAD, k, rb_nan());
        memset(&board->progress[k], 0, sizeof board->progress[k]);
        board->progress[k].is_active = 1;
    }
    memset(counts + 12 * (size_t)program->n, RB_NOT_RUN, program->n);
    setup->scheme = job->scheme;
    setup->decides = !program->is_coded;
    setup->compliance_a = job->compliance_a;
    if (rb_is_nan(setup->compliance_a) && (board->abilities & RB_HAS_COMPLIANCE)) {
        setup->compliance_a = board->limits.current_a; /* what no cell may exceed */
    }
    setup->cells = program->cells;
    setup->n = program->n;
}

/* Counters of the reply: 0 SET pulses, 1 RESET pulses, 2 reads. */
static uint8_t *counter(struct rb_board *board, uint32_t which, uint32_t place) {
    size_t n = board->job.as.program.n;
    return board->reply + REPLY_HEAD + 8 * n + 4 * (which * n + place);
}

static void count(struct rb_board *board, uint32_t which, uint32_t place) {
    uint8_t *at = counter(board, which, place);
    rb_put32(at, rb_u32(at) + 1);
}

/* A reading of one cell: what it does next. */
static void decide(struct rb_board *board, uint32_t place, double conductance_s, uint8_t status) {
    const struct rb_program *program = &board->job.as.program;
    struct rb_progress *progress = &board->progress[place];
    uint8_t *ends = counter(board, 3, 0);
    double low = rb_f64_of(program->low, place), high = rb_f64_of(program->high, place);
    bool ok = status == RB_OK && rb_is_finite(conductance_s);
    bool above = status == RB_OVER_RANGE ||
                 ((ok || status == RB_COMPLIANCE) && conductance_s > high);
    /* A cell that hardly conducts reads below 0 as often as above: no SET mends its noise. */
    bool below = ok && conductance_s < (low > 0.0 ? low : -high);
    bool unusable = !ok && !above;
    int8_t wanted = above ? -1 : below ? 1 : 0;
    bool is_reversal = wanted && progress->polarity && wanted != progress->polarity;
    uint64_t spent = (uint64_t)rb_u32(counter(board, 0, place)) + rb_u32(counter(board, 1, place));
    bool accepted, failed;
    count(board, 2, place);
    rb_put_f64_of(board->reply + REPLY_HEAD, place, conductance_s);
    ends[place] = status;
    progress->confirmed = wanted || unusable ? 0 : progress->confirmed + 1;
    accepted = progress->confirmed > program->confirm;
    progress->reversals += is_reversal;
    failed = unusable || (wanted && (spent >= rb_u32_of(program->budget, place) ||
                                     progress->reversals > program->max_reversals));
    progress->ramp = is_reversal ? 0 : progress->ramp;
    progress->polarity = wanted ? wanted : progress->polarity;
    progress->next = failed ? 0 : wanted;
    progress->is_active = !accepted && !failed;
    ends[program->n + place] = accepted;
}

static void due_pulse(struct rb_board *board, uint32_t place, struct rb_shot *shot) {
    const struct rb_program *program = &board->job.as.program;
    const struct rb_progress *progress = &board->progress[place];
    const struct rb_train *train = &program->train[progress->next > 0 ? 0 : 1];
    pulse(board, place, progress->next, level(&train->amplitude, progress->ramp, place),
          level(&train->gate, progress->ramp, place), shot);
}

static void note_given(struct rb_board *board, uint32_t place) {
    struct rb_progress *progress = &board->progress[place];
    count(board, progress->next > 0 ? 0 : 1, place);
    progress->ramp++;
    progress->next = 0;
}

/* One cell: the pulse that is due, and the reading behind it. */
static enum rb_slice slice_singly(struct rb_board *board) {
    struct rb_program *program = &board->job.as.program;
    uint32_t n = 0;
    int32_t done;
    while (program->at < program->n && !board->progress[program->at].is_active) {
        program->at++;
    }
    if (program->at == program->n) {
        return RB_DONE;
    }
    if (board->progress[program->at].next) {
        due_pulse(board, program->at, &board->shots[n++]);
    }
    read_shot(board, program->at, &board->shots[n++]);
    done = rb_run(board, n);
    if (done > 0 && n == 2) {
        note_given(board, program->at);
    }
    if (done == (int32_t)n) {
        double conductance_s = rb_conductance(&board->shots[n - 1], &board->readings[0]);
        decide(board, program->at, conductance_s, board->readings[0].status);
    }
    return done < 0 ? RB_FAILED : RB_GOES_ON;
}

/* All cells of a tile that wait are read; those read along are dropped. */
static enum rb_slice slice_reading(struct rb_board *board) {
    const struct rb_envelope *can = board->can;
    struct rb_program *program = &board->job.as.program;
    struct rb_block *block = &board->job.vectors.product.block;
    enum rb_slice came_to;
    if (!board->job.coded.order) {
        struct rb_product next = coded_product(board);
        if (program->tile == can->tiles) {
            program->pulsing = 1;
        } else if (around(board, program->tile, false, &next.block)) {
            rb_coded_begin(board, &next, 1);
        } else {
            program->tile++;
        }
        return RB_GOES_ON;
    }
    came_to = rb_coded_slice(board);
    if (came_to != RB_DONE) {
        return came_to;
    }
    for (uint32_t k = 0; k < program->n; k++) {
        const struct rb_progress *progress = &board->progress[k];
        uint32_t cell = rb_u32_of(program->cells, k);
        if (cell / can->columns / can->rows == block->tile && progress->is_active &&
            progress->next == 0) {
            bool is_known = board->job.coded.saturated == 0;
            double conductance_s =
                rb_coded_conductance(board, cell / can->columns % can->rows - block->row,
                                     cell % can->columns - block->column);
            decide(board, k, conductance_s, is_known ? RB_OK : RB_OVER_RANGE);
        }
    }
    program->vectors += board->job.coded.vectors;
    board->job.coded.order = 0;
    program->tile++;
    return RB_GOES_ON;
}

/* The pulses of one polarity, as many as a slice takes. */
static enum rb_slice slice_pulses(struct rb_board *board) {
    struct rb_program *program = &board->job.as.program;
    uint32_t places[RB_SHOTS], n = 0, at = program->at;
    double left_s = rb_slice_s(board);
    int32_t done;
    for (; at < program->n && n < RB_SHOTS && (n == 0 || left_s > 0.0); at++) {
        if (board->progress[at].next == program->pulsing) {
            due_pulse(board, at, &board->shots[n]);
            left_s -= rb_shot_s(board, &board->shots[n]);
            places[n++] = at;
        }
    }
    done = n ? rb_run(board, n) : 0;
    for (int32_t k = 0; k < done; k++) {
        note_given(board, places[k]);
    }
    if (done < 0) {
        return RB_FAILED;
    }
    program->at = done == (int32_t)n ? at : places[done];
    if (program->at == program->n) {
        program->at = 0;
        program->tile = 0;
        program->pulsing = program->pulsing > 0 ? -1 : 0;
    }
    return RB_GOES_ON;
}

static bool is_finished(const struct rb_board *board) {
    for (uint32_t k = 0; k < board->job.as.program.n; k++) {
        if (board->progress[k].is_active) {
            return false;
        }
    }
    return true;
}

static enum rb_slice slice(struct rb_board *board) {
    struct rb_program *program = &board->job.as.program;
    if (!program->is_coded) {
        return slice_singly(board);
    }
    if (program->pulsing) {
        return slice_pulses(board);
    }
    if (!board->job.coded.order && program->tile == 0 && is_finished(board)) {
        rb_put32(counter(board, 3, 0) + 2 * (size_t)program->n, program->vectors);
        return RB_DONE;
    }
    return slice_reading(board);
}

const struct rb_operation rb_program_operation = {parse, check, begin, slice, true};
