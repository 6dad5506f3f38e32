/* Sizes for 64 KiB of RAM: an array of 8 x 8, messages of 8 KiB. */
#define RB_MAX_PAYLOAD 1024u
#define RB_MAX_MESSAGE 8192u
#define RB_MAX_CELLS 64u
#define RB_MAX_ROWS 8u
#define RB_MAX_COLUMNS 8u
#define RB_SHOTS 8u
#define RB_VECTORS 1u
#define RB_CODE_VALUES 256u
#define RB_CHIP_CELLS 64u
