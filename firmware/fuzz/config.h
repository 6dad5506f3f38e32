/* Sizes under the fuzzer: small, so that their ends are found. */
#define RB_MAX_MESSAGE 4096u
#define RB_MAX_CELLS 32u
#define RB_MAX_ROWS 8u
#define RB_MAX_COLUMNS 8u
#define RB_SHOTS 8u
#define RB_VECTORS 2u
#define RB_CODE_VALUES 512u
#define RB_CHIP_CELLS 128u
