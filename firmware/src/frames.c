/* Section 1 of the protocol: frames out, frames in, and how they are found again. */
#include <string.h>

#include "internal.h"

enum { HEADER = 36 };
static const uint8_t SYNC[4] = {0xA5, 0x52, 0x42, 0x5A};

bool rb_send_part(struct rb_board *board, struct rb_outgoing *outgoing) {
    uint8_t head[HEADER], end[4];
    size_t from = (size_t)outgoing->part * board->frame_bytes;
    size_t size = outgoing->size - from;
    bool more = size > board->frame_bytes;
    uint32_t crc;
    if (more) {
        size = board->frame_bytes;
    }
    memcpy(head, SYNC, sizeof SYNC);
    head[4] = 1;
    head[5] = outgoing->type;
    head[6] = (uint8_t)(RB_REPLY | outgoing->flags | (more ? RB_MORE : 0));
    head[7] = 0;
    rb_put32(head + 8, outgoing->sequence);
    rb_put32(head + 12, board->boot);
    rb_put32(head + 16, outgoing->part);
    rb_put32(head + 20, (uint32_t)size);
    rb_put_f64(head + 24, board->hooks->clock_s(board->hooks->port));
    crc = rb_crc32(0, head, 32);
    rb_put32(head + 32, crc);
    rb_put32(end, rb_crc32(crc, outgoing->message + from, size));
    board->hooks->send(board->hooks->port, head, HEADER);
    if (size) {
        board->hooks->send(board->hooks->port, outgoing->message + from, size);
    }
    board->hooks->send(board->hooks->port, end, sizeof end);
    outgoing->part++;
    return more;
}

void rb_send(struct rb_board *board, uint8_t type, uint32_t sequence, uint8_t flags,
             const uint8_t *message, size_t size) {
    struct rb_outgoing whole = {message, size, 0, sequence, type, flags};
    while (rb_send_part(board, &whole)) {
    }
}

size_t rb_put_error(struct rb_board *board, uint8_t *at, enum rb_error error, uint32_t number) {
    size_t size = 0;
    while (board->text[size]) {
        size++;
    }
    rb_put32(at, (uint32_t)error);
    rb_put32(at + 4, number);
    at[8] = (uint8_t)size;
    memcpy(at + 9, board->text, size);
    return 9 + size;
}

void rb_send_error(struct rb_board *board, uint8_t type, uint32_t sequence, enum rb_error error,
                   uint32_t number) {
    size_t size = rb_put_error(board, board->small, error, number);
    rb_send(board, type, sequence, RB_ERROR, board->small, size);
}

/* How many bytes to move on from a sync at the start of `board->frame`; 0: wait for more. */
static size_t look(struct rb_board *board) {
    const uint8_t *head = board->frame;
    struct rb_frame frame;
    uint32_t crc;
    if (board->pending < HEADER) {
        return 0;
    }
    crc = rb_crc32(0, head, 32);
    frame.size = rb_u32(head + 20);
    if (crc != rb_u32(head + 32) || frame.size > board->can->max_payload) {
        return 1;
    }
    if (board->pending < frame.size + RB_OVERHEAD) {
        return 0;
    }
    frame.version = head[4];
    frame.type = head[5];
    frame.more = (head[6] & RB_MORE) != 0;
    frame.sequence = rb_u32(head + 8);
    frame.boot = rb_u32(head + 12);
    frame.part = rb_u32(head + 16);
    frame.payload = head + HEADER;
    if (rb_crc32(crc, frame.payload, frame.size) != rb_u32(frame.payload + frame.size)) {
        rb_refuse(board, RB_CRC, "the frame was damaged");
        rb_send_error(board, frame.type, frame.sequence, RB_CRC, 0);
        return 1;
    }
    rb_take_frame(board, &frame);
    return frame.size + RB_OVERHEAD;
}

/* Where the next frame may begin: a sync, or its first bytes at the very end. */
static size_t next_sync(const struct rb_board *board, size_t from) {
    for (size_t at = from; at < board->pending; at++) {
        size_t n = 0;
        while (n < sizeof SYNC && at + n < board->pending && board->frame[at + n] == SYNC[n]) {
            n++;
        }
        if (n == sizeof SYNC || at + n == board->pending) {
            return at;
        }
    }
    return board->pending;
}

static void drop(struct rb_board *board, size_t size) {
    board->pending -= size;
    rb_copy(board->frame, board->frame + size, board->pending);
}

void rb_look_for_frames(struct rb_board *board) {
    for (;;) {
        size_t size;
        drop(board, next_sync(board, 0));
        if (board->pending < sizeof SYNC) {
            return;
        }
        size = look(board);
        if (size == 0) {
            return;
        }
        drop(board, size);
    }
}

void rb_receive(struct rb_board *board, const uint8_t *bytes, size_t size) {
    if (size) {
        board->byte_ms = board->hooks->ticks_ms(board->hooks->port);
    }
    while (size) {
        size_t room = sizeof board->frame - board->pending;
        size_t n = size < room ? size : room;
        memcpy(board->frame + board->pending, bytes, n);
        board->pending += n;
        bytes += n;
        size -= n;
        rb_look_for_frames(board);
    }
}
