/* Section 2: messages in parts, and which of them are answered when. */
#include <string.h>

#include "internal.h"

static bool is_known(uint8_t type) {
    return (type >= RB_IDENTIFY && type <= RB_BODY_LIMITS) ||
           (type >= RB_APPLY_TYPE && type <= RB_READ_BLOCKS_TYPE);
}

static bool is_allowed_while_busy(uint8_t type) {
    return type == RB_IDENTIFY || type == RB_STATUS || type == RB_KEEP_ALIVE || type == RB_ABORT ||
           type == RB_SAFE_OFF;
}

static enum rb_error refusal_of(struct rb_board *board, const struct rb_frame *frame) {
    if (!is_known(frame->type) ||
        (frame->type >= RB_APPLY_TYPE && !rb_operation_of(board, frame->type)) ||
        (frame->type == RB_EXECUTED && !(board->abilities & RB_RECORDS)) ||
        (frame->type == RB_BODY_LIMITS && !(board->abilities & RB_BODY))) {
        rb_refuse(board, RB_UNKNOWN_TYPE, "this board has no command of type ");
        rb_say_number(board, frame->type);
        return RB_UNKNOWN_TYPE;
    }
    if (frame->type != RB_IDENTIFY && frame->boot != 0 && frame->boot != board->boot) {
        return rb_refuse(board, RB_STALE_BOOT, "the board was rebooted since the request's boot");
    }
    if (board->job.is_active && !is_allowed_while_busy(frame->type)) {
        return rb_refuse(board, RB_BUSY, "an operation is under way");
    }
    return RB_FINE;
}

/* A whole message: `payload` is NULL where it was too much to keep beside the operation's. */
static void take_message(struct rb_board *board, const struct rb_frame *frame,
                         const uint8_t *payload, size_t size) {
    struct rb_job *job = &board->job;
    enum rb_error error = refusal_of(board, frame);
    if (error) {
        rb_send_error(board, frame->type, frame->sequence, error,
                      error == RB_BUSY ? job->number : 0);
    } else if (frame->type >= RB_APPLY_TYPE) {
        rb_operation(board, frame->type, frame->sequence, payload, size);
    } else if ((frame->type == RB_ABORT || frame->type == RB_SAFE_OFF) && job->is_active) {
        rb_stop(board, RB_ABORTED);
        if (board->waiting_count < RB_WAITING) { /* a host has one outstanding, retries aside */
            board->waiting[board->waiting_count].type = frame->type;
            board->waiting[board->waiting_count++].sequence = frame->sequence;
        }
    } else if (frame->type != RB_KEEP_ALIVE) {
        rb_answer(board, frame->type, frame->sequence, payload, size, 0);
    }
}

/* What is still to be sent from where a request now comes must not be sent any more. */
static void keep(struct rb_board *board, const uint8_t *payload, size_t from, size_t size) {
    if (board->outgoing.message == board->message) {
        board->outgoing.message = NULL;
    }
    if (size) {
        memcpy(board->message + from, payload, size);
    }
}

static void take_part(struct rb_board *board, const struct rb_frame *frame) {
    struct rb_incoming *incoming = &board->incoming;
    bool is_kept = !board->job.is_active; /* else the message belongs to the operation */
    if (frame->part == 0) {
        incoming->parts = 0;
        incoming->size = 0;
        incoming->sequence = frame->sequence;
    }
    if (frame->part != incoming->parts || frame->sequence != incoming->sequence ||
        frame->size > board->can->max_message - incoming->size) {
        incoming->parts = 0;
        incoming->size = 0;
        rb_refuse(board, RB_INCOMPLETE, "this part does not continue a message of at most ");
        rb_say_number(board, board->can->max_message);
        rb_say(board, " bytes");
        rb_send_error(board, frame->type, frame->sequence, RB_INCOMPLETE, 0);
        return;
    }
    if (is_kept) {
        keep(board, frame->payload, incoming->size, frame->size);
    }
    incoming->parts++;
    incoming->size += frame->size;
    if (!frame->more) {
        size_t size = incoming->size;
        incoming->parts = 0;
        incoming->size = 0;
        take_message(board, frame, is_kept ? board->message : NULL, size);
    }
}

void rb_take_frame(struct rb_board *board, const struct rb_frame *frame) {
    board->heard_ms = board->hooks->ticks_ms(board->hooks->port);
    if (frame->version != 1) {
        rb_refuse(board, RB_VERSION, "this board speaks version 1, not ");
        rb_say_number(board, frame->version);
        rb_send_error(board, frame->type, frame->sequence, RB_VERSION, 0);
    } else if (frame->part || frame->more) {
        take_part(board, frame);
    } else if (frame->type >= RB_EXECUTED && !board->job.is_active &&
               frame->size <= board->can->max_message) {
        /* Operations are read while they are carried out, the answer of EXECUTED is longer than
         * its request: both need the room of a message. */
        board->incoming.parts = 0;
        board->incoming.size = 0;
        keep(board, frame->payload, 0, frame->size);
        take_message(board, frame, board->message, frame->size);
    } else {
        take_message(board, frame, frame->payload, frame->size);
    }
}
