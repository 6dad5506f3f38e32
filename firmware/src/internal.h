/* What the files of the library share. */
#ifndef RB_INTERNAL_H
#define RB_INTERNAL_H

#include "rram_board.h"

enum rb_type {
    RB_IDENTIFY = 0x01,
    RB_STATUS,
    RB_LIMITS,
    RB_ARM,
    RB_SAFE_OFF,
    RB_WATCHDOG,
    RB_KEEP_ALIVE,
    RB_ABORT,
    RB_SELF_TEST,
    RB_EXECUTED,
    RB_BODY_LIMITS,
    RB_APPLY_TYPE = 0x10,
    RB_PROGRAM_TYPE,
    RB_MULTIPLY_TYPE,
    RB_WRITE_WORDS_TYPE,
    RB_WAIT_TYPE,
    RB_READ_BLOCKS_TYPE
};

enum rb_error {
    RB_FINE,
    RB_BAD_REQUEST,
    RB_UNKNOWN_TYPE,
    RB_VERSION,
    RB_STALE_BOOT,
    RB_BUSY,
    RB_NOT_ARMED,
    RB_LIMIT,
    RB_RANGE,
    RB_NUMBER_PAST,
    RB_NUMBER_REUSED,
    RB_ALREADY_EXECUTED,
    RB_ABORTED,
    RB_WATCHDOG_TRIPPED,
    RB_HARDWARE,
    RB_INCOMPLETE,
    RB_WORDS_LOST,
    RB_CRC
};

enum rb_flag { RB_REPLY = 1, RB_MORE = 2, RB_ERROR = 4, RB_WORKING = 8 };

/* What a slice of an operation came to. */
enum rb_slice { RB_GOES_ON, RB_DONE, RB_FAILED };

/* bytes.c: numbers in messages, little-endian. */
uint16_t rb_u16(const uint8_t *at);
uint32_t rb_u32(const uint8_t *at);
int32_t rb_i32(const uint8_t *at);
uint64_t rb_u64(const uint8_t *at);
double rb_f64(const uint8_t *at);
uint32_t rb_u32_of(const uint8_t *column, uint32_t place);
double rb_f64_of(const uint8_t *column, uint32_t place);
void rb_put16(uint8_t *at, uint16_t value);
void rb_put32(uint8_t *at, uint32_t value);
void rb_put64(uint8_t *at, uint64_t value);
void rb_put_f64(uint8_t *at, double value);
void rb_put_f64_of(uint8_t *column, uint32_t place, double value);
uint32_t rb_crc32(uint32_t crc, const uint8_t *bytes, size_t size);
void rb_copy(uint8_t *to, const uint8_t *from, size_t size);

/* A request read from its start; `is_short` once more was asked than there is. */
struct rb_fields {
    const uint8_t *at;
    size_t left;
    bool is_short;
};

/* The next `count` x `size` bytes; NULL where the message is too short. */
const uint8_t *rb_take(struct rb_fields *fields, uint64_t count, uint32_t size);

/* text.c: the text of an error, in `board->text`. */
enum rb_error rb_refuse(struct rb_board *board, enum rb_error error, const char *what);
void rb_say(struct rb_board *board, const char *text);
void rb_say_number(struct rb_board *board, double value);
void rb_say_cell(struct rb_board *board, uint32_t cell);

/* arithmetic.c: what freestanding C does not bring. */
bool rb_is_nan(double x);
bool rb_is_finite(double x);
double rb_nan(void);
double rb_abs(double x);
double rb_sqrt(double x);
uint64_t rb_root(uint64_t x); /* whole part of the square root */
double rb_rint(double x);     /* to the nearest whole number, halves to the even one */
double rb_exp(double x);
double rb_cos_turns(double turns); /* cos(2 pi turns) */

/* frames.c */
void rb_send(struct rb_board *board, uint8_t type, uint32_t sequence, uint8_t flags,
             const uint8_t *message, size_t size);
bool rb_send_part(struct rb_board *board, struct rb_outgoing *outgoing);
void rb_send_error(struct rb_board *board, uint8_t type, uint32_t sequence, enum rb_error error,
                   uint32_t number);
size_t rb_put_error(struct rb_board *board, uint8_t *at, enum rb_error error, uint32_t number);
void rb_look_for_frames(struct rb_board *board);

/* messages.c: called by frames.c. */
struct rb_frame {
    uint8_t version, type;
    bool more;
    uint32_t sequence, boot, part;
    const uint8_t *payload;
    size_t size;
};
void rb_take_frame(struct rb_board *board, const struct rb_frame *frame);

/* commands.c */
void rb_answer(struct rb_board *board, uint8_t type, uint32_t sequence, const uint8_t *payload,
               size_t size, uint32_t stopped);

/* jobs.c: operation numbers, watchdog, beginning and end. */
void rb_operation(struct rb_board *board, uint8_t type, uint32_t sequence, const uint8_t *payload,
                  size_t size);
void rb_stop(struct rb_board *board, enum rb_error why);
void rb_work(struct rb_board *board);

/* limits.c */
double rb_volts(int32_t uv);
bool rb_is_pulse(const struct rb_board *board, const struct rb_shot *shot);
/* No cell sees more than the read limit, selected or not. */
bool rb_is_read(const struct rb_board *board, const struct rb_shot *shot);
/* Whether a shot leaves a pulse on cells of other rows: of its column, of all others. */
void rb_leaves(const struct rb_board *board, const struct rb_shot *shot, bool *column, bool *apart);
enum rb_error rb_check_shot(struct rb_board *board, const struct rb_shot *shot, double compliance_a);
enum rb_error rb_check_half_select(struct rb_board *board, const struct rb_shot *shot);
enum rb_error rb_check_width(struct rb_board *board, const struct rb_shot *shot, bool all_read);
enum rb_error rb_check_reach(struct rb_board *board, const struct rb_shot *shot);
enum rb_error rb_check_window(struct rb_board *board, uint32_t cell, const char *what, double value,
                              bool may_be_infinite);
enum rb_error rb_check_product(struct rb_board *board, const struct rb_product *product);
enum rb_error rb_check_volts(struct rb_board *board, uint32_t cell, double value, double limit,
                             const char *what);
bool rb_is_inside(const struct rb_board *board, const struct rb_block *block);
enum rb_error rb_check_setting(struct rb_board *board, uint8_t scheme, double compliance_a);
enum rb_error rb_cells(struct rb_board *board, const uint8_t *cells, uint32_t n);
enum rb_error rb_read_limits(struct rb_board *board, const uint8_t *payload, size_t size,
                             struct rb_limits *limits);
void rb_put_limits(uint8_t *at, const struct rb_limits *limits);
enum rb_error rb_read_body_limits(struct rb_board *board, const uint8_t *payload, size_t size,
                                  struct rb_limits *limits);
void rb_put_body_limits(uint8_t *at, const struct rb_limits *limits);

/* wear.c: pulses of an operation that its cells take, that each leaves on every other cell of its
 * column, and on every cell of other rows and columns. */
struct rb_wear {
    uint64_t own, column, apart;
};
typedef struct rb_wear rb_wear_of(const struct rb_board *board, uint32_t place);
enum rb_error rb_check_wear(struct rb_board *board, const uint8_t *cells, uint32_t n,
                            rb_wear_of *wear_of);

/* steps.c: steps as messages hold them, shots as hooks take them. */
bool rb_steps_take(struct rb_steps *steps, struct rb_fields *fields);
enum rb_error rb_check_steps(struct rb_board *board, const struct rb_steps *steps);
enum rb_error rb_check_others(struct rb_board *board, uint32_t bits);
bool rb_take_levels(struct rb_fields *fields, uint32_t bits, int32_t *body_uv, int32_t *idle_uv);
uint8_t rb_step_measure(const struct rb_steps *steps, uint32_t step);
void rb_step_shot(const struct rb_board *board, const struct rb_steps *steps, uint32_t step,
                  uint32_t place, uint32_t cell, struct rb_shot *shot);
double rb_shot_s(const struct rb_board *board, const struct rb_shot *shot);
double rb_slice_s(const struct rb_board *board);
int32_t rb_run(struct rb_board *board, uint32_t n);
double rb_conductance(const struct rb_shot *shot, struct rb_reading *reading);

/* vectors.c: input vectors on a block, by hardware or as sums of conversions. */
enum rb_slice rb_vectors_slice(struct rb_board *board);

/* coded.c: one block by codes. */
bool rb_code_fits(const struct rb_board *board, const struct rb_block *block);
void rb_coded_begin(struct rb_board *board, const struct rb_product *product, uint32_t repeat);
enum rb_slice rb_coded_slice(struct rb_board *board);
double rb_coded_conductance(const struct rb_board *board, uint32_t row, uint32_t column);
double rb_coded_sigma(const struct rb_board *board, uint32_t column);
double rb_coded_lsb_s(const struct rb_board *board);

/* The operations: read a request, check it, begin it, carry out a slice. */
struct rb_operation {
    enum rb_error (*parse)(struct rb_board *board, struct rb_fields *fields);
    enum rb_error (*check)(struct rb_board *board);
    void (*begin)(struct rb_board *board, struct rb_setup *setup);
    enum rb_slice (*slice)(struct rb_board *board);
    bool drives;
};
extern const struct rb_operation rb_apply_operation;
extern const struct rb_operation rb_program_operation;
extern const struct rb_operation rb_multiply_operation;
extern const struct rb_operation rb_words_operation;
extern const struct rb_operation rb_wait_operation;
extern const struct rb_operation rb_blocks_operation;
const struct rb_operation *rb_operation_of(const struct rb_board *board, uint8_t type);

/* The head of every operation's reply; `size` is that of the whole. */
void rb_reply_head(struct rb_board *board, uint32_t n, size_t size);

#endif
