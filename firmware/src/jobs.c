/* Sections 3 and 4: operations are carried out once, can be stopped, and end with outputs off. */
#include <string.h>

#include "internal.h"

enum { NOTICE_MS = 100, GAP_MS = 200, FIRST_WATCHDOG_MS = 2000 };

/* What the hooks bear out of what the envelope says. With `run` each shot brings what it needs. */
static uint32_t abilities_of(const struct rb_hooks *hooks, const struct rb_envelope *can) {
    uint32_t lacks = 0;
    bool has_selectors = can->cell != RB_1R;
    lacks |= has_selectors && (hooks->run || hooks->body) ? 0u : RB_BODY;
    lacks |= has_selectors && (hooks->run || hooks->idle_gates) ? 0u : RB_IDLE_GATES;
    lacks |= has_selectors && (hooks->run || hooks->convert_both) ? 0u : RB_BOTH_CURRENTS;
    return can->abilities & ~lacks;
}

void rb_boot(struct rb_board *board, const struct rb_hooks *hooks, const struct rb_envelope *can,
             const struct rb_limits *own, uint32_t boot) {
    double fitting = 0.05 * can->link_bytes_per_s; /* a frame takes 50 ms at most */
    /* The large buffers are written before they are read. */
    memset(board, 0, offsetof(struct rb_board, frame));
    board->hooks = hooks;
    board->can = can;
    board->own = board->limits = *own;
    board->limits.body_v = board->limits.body_over_v = 0.0;
    board->abilities = abilities_of(hooks, can);
    board->boot = boot ? boot : 1;
    board->watchdog_ms = FIRST_WATCHDOG_MS;
    board->frame_bytes = 1024;
    if (fitting > 1024.0) {
        board->frame_bytes =
            fitting < (double)can->max_payload ? (uint32_t)fitting : can->max_payload;
    }
    board->heard_ms = board->noticed_ms = board->byte_ms = hooks->ticks_ms(hooks->port);
    if (board->abilities & RB_RECORDS) {
        board->last = hooks->recall_last(hooks->port);
    }
    hooks->off(hooks->port);
}

const struct rb_operation *rb_operation_of(const struct rb_board *board, uint8_t type) {
    uint32_t can = board->abilities;
    switch (type) {
    case RB_APPLY_TYPE:
        return &rb_apply_operation;
    case RB_PROGRAM_TYPE:
        return can & RB_PROGRAM ? &rb_program_operation : NULL;
    case RB_MULTIPLY_TYPE:
        return can & RB_MULTIPLY ? &rb_multiply_operation : NULL;
    case RB_WRITE_WORDS_TYPE:
        return board->can->words ? &rb_words_operation : NULL;
    case RB_WAIT_TYPE:
        return &rb_wait_operation;
    case RB_READ_BLOCKS_TYPE:
        return can & RB_READ_BLOCKS ? &rb_blocks_operation : NULL;
    default:
        return NULL;
    }
}

static uint32_t given_before(struct rb_board *board) {
    struct rb_job *job = &board->job;
    const struct rb_hooks *hooks = board->hooks;
    bool is_apply = job->type == RB_APPLY_TYPE;
    const uint8_t *cells = is_apply ? job->as.apply.cells : job->as.program.cells;
    uint32_t n = is_apply ? job->as.apply.n : job->as.program.n, given = 0;
    if ((!is_apply && job->type != RB_PROGRAM_TYPE) || !(board->abilities & RB_RECORDS)) {
        return 0;
    }
    for (uint32_t k = 0; k < n; k++) {
        uint32_t number, pulses;
        hooks->recall(hooks->port, rb_u32_of(cells, k), &number, &pulses);
        given += number == job->number ? pulses : 0;
    }
    return given;
}

/* Whether a message may be carried out under its number. */
static enum rb_error check_number(struct rb_board *board, uint32_t number, uint32_t crc,
                                  size_t size, bool *is_kept) {
    *is_kept = false;
    if (number == 0 || number < board->last) {
        rb_refuse(board, RB_NUMBER_PAST, "operation ");
        rb_say_number(board, number);
        rb_say(board, " is not above the last, ");
        rb_say_number(board, board->last);
        return RB_NUMBER_PAST;
    }
    if (number == board->last && board->has_kept) {
        if (crc != board->kept_crc || size != board->kept_size) {
            rb_refuse(board, RB_NUMBER_REUSED, "operation ");
            rb_say_number(board, number);
            rb_say(board, " was another one");
            return RB_NUMBER_REUSED;
        }
        *is_kept = true;
    }
    return RB_FINE;
}

static enum rb_error check_operation(struct rb_board *board, const struct rb_operation *operation,
                                     const uint8_t *payload, size_t size) {
    struct rb_job *job = &board->job;
    struct rb_fields fields = {payload + 4, size - 4, false};
    enum rb_error error = operation->parse(board, &fields);
    uint32_t given;
    if (fields.is_short) {
        return rb_refuse(board, RB_BAD_REQUEST, "the message ends too early");
    }
    if (error) {
        return error;
    }
    if (fields.left) {
        return rb_refuse(board, RB_BAD_REQUEST, "the message has bytes too many");
    }
    if (job->number == board->last && (given = given_before(board)) != 0) {
        rb_refuse(board, RB_ALREADY_EXECUTED, "operation ");
        rb_say_number(board, job->number);
        rb_say(board, " had given ");
        rb_say_number(board, given);
        rb_say(board, " pulses before the reboot");
        return RB_ALREADY_EXECUTED;
    }
    if (!board->is_armed) {
        return rb_refuse(board, RB_NOT_ARMED,
                         board->is_tripped
                             ? "the board is not armed: the watchdog has tripped"
                             : "the board is not armed: ARM has not been sent since boot or SAFE "
                               "OFF");
    }
    return operation->check(board);
}

static void begin(struct rb_board *board, const struct rb_operation *operation) {
    const struct rb_hooks *hooks = board->hooks;
    struct rb_job *job = &board->job;
    struct rb_setup setup;
    memset(&setup, 0, sizeof setup);
    setup.number = job->number;
    setup.type = job->type;
    setup.compliance_a = rb_nan();
    setup.request_bytes = job->size;
    job->is_active = true;
    job->stop = RB_FINE;
    board->has_kept = false;
    if (board->outgoing.message == board->reply) {
        board->outgoing.message = NULL; /* the reply of the last operation was still going out */
    }
    board->last = job->number;
    board->noticed_ms = hooks->ticks_ms(hooks->port);
    if (board->abilities & RB_RECORDS) {
        hooks->remember_last(hooks->port, job->number);
    }
    operation->begin(board, &setup);
    if (hooks->begin) {
        hooks->begin(hooks->port, &setup);
    }
    job->started_s = hooks->clock_s(hooks->port);
}

void rb_operation(struct rb_board *board, uint8_t type, uint32_t sequence, const uint8_t *payload,
                  size_t size) {
    const struct rb_operation *operation = rb_operation_of(board, type);
    struct rb_job *job = &board->job;
    uint32_t crc = rb_crc32(0, payload, size), number = 0;
    bool is_kept = false;
    enum rb_error error = rb_refuse(board, RB_BAD_REQUEST, "the message ends too early");
    if (size > board->can->max_message) {
        error = rb_refuse(board, RB_INCOMPLETE, "the message is too long");
    } else if (size >= 4) {
        number = rb_u32(payload);
        error = check_number(board, number, crc, size, &is_kept);
    }
    if (!error && is_kept) {
        struct rb_outgoing again = {board->reply, board->reply_size, 0, sequence, type,
                                    board->kept_flags};
        board->outgoing = again;
        return;
    }
    if (!error) {
        memset(job, 0, sizeof *job);
        job->type = type;
        job->number = number;
        job->sequence = sequence;
        job->crc = crc;
        job->size = size;
        error = check_operation(board, operation, payload, size);
    }
    if (error) {
        rb_send_error(board, type, sequence, error, number);
    } else {
        begin(board, operation);
    }
}

void rb_reply_head(struct rb_board *board, uint32_t n, size_t size) {
    rb_put32(board->reply, board->job.number);
    rb_put32(board->reply + 4, n);
    board->reply_size = size;
}

void rb_stop(struct rb_board *board, enum rb_error why) {
    if (board->job.is_active && !board->job.stop) {
        board->job.stop = (uint8_t)why;
    }
}

/* The operation has ended: outputs off, its reply, then whoever waited for that. */
static void finish(struct rb_board *board, enum rb_error error) {
    const struct rb_hooks *hooks = board->hooks;
    struct rb_job *job = &board->job;
    struct rb_outgoing reply = {board->reply, 0, 0, job->sequence, job->type, 0};
    bool is_off;
    hooks->off(hooks->port);
    is_off = !hooks->is_on(hooks->port);
    if (!is_off) {
        error = RB_HARDWARE;
        board->is_armed = false;
    }
    if (error) {
        rb_refuse(board, error, "operation ");
        rb_say_number(board, job->number);
        rb_say(board, error == RB_HARDWARE           ? " failed: a fault of the hardware"
                      : error == RB_WATCHDOG_TRIPPED ? " was stopped: the host was silent"
                                                     : " was stopped: it was told to stop");
        rb_say(board, is_off ? "; outputs are off" : "; OUTPUTS ARE STILL ON");
        board->reply_size = rb_put_error(board, board->reply, error, job->number);
        reply.flags = RB_ERROR;
    } else {
        rb_put_f64(board->reply + 8, job->started_s);
        rb_put_f64(board->reply + 16, hooks->clock_s(hooks->port));
        board->executions++;
    }
    if (hooks->end) {
        hooks->end(hooks->port, board->reply_size);
    }
    reply.size = board->reply_size;
    board->kept_flags = reply.flags;
    board->kept_crc = job->crc;
    board->kept_size = job->size;
    board->has_kept = true;
    job->is_active = false;
    board->incoming.parts = 0; /* what came meanwhile was not kept */
    board->outgoing = reply;
    if (board->waiting_count) {
        while (rb_send_part(board, &board->outgoing)) {
        }
        board->outgoing.message = NULL;
    }
    for (uint32_t k = 0; k < board->waiting_count; k++) {
        rb_answer(board, board->waiting[k].type, board->waiting[k].sequence, NULL, 0, job->number);
    }
    board->waiting_count = 0;
}

static void look_at_time(struct rb_board *board) {
    const struct rb_hooks *hooks = board->hooks;
    struct rb_job *job = &board->job;
    uint32_t now_ms = hooks->ticks_ms(hooks->port);
    if (board->pending && now_ms - board->byte_ms > GAP_MS) {
        /* Give up the frame that has begun, look for others behind its start. */
        board->pending -= 1;
        rb_copy(board->frame, board->frame + 1, board->pending);
        rb_look_for_frames(board);
    }
    if (!job->is_active) {
        return;
    }
    if (now_ms - board->heard_ms > board->watchdog_ms && !job->stop) {
        board->trips++;
        board->is_tripped = true;
        board->is_armed = false;
        rb_stop(board, RB_WATCHDOG_TRIPPED);
    }
    if (now_ms - board->noticed_ms > NOTICE_MS) {
        board->noticed_ms = now_ms;
        rb_put32(board->small, job->number);
        rb_send(board, job->type, job->sequence, RB_WORKING, board->small, 4);
    }
}

bool rb_poll(struct rb_board *board) {
    struct rb_job *job = &board->job;
    look_at_time(board);
    if (job->is_active && job->stop) {
        finish(board, (enum rb_error)job->stop);
    } else if (job->is_active) {
        enum rb_slice slice = rb_operation_of(board, job->type)->slice(board);
        if (slice != RB_GOES_ON) {
            finish(board, slice == RB_DONE ? RB_FINE : RB_HARDWARE);
        }
    }
    if (board->outgoing.message && !rb_send_part(board, &board->outgoing)) {
        board->outgoing.message = NULL;
    }
    return job->is_active || board->outgoing.message;
}
