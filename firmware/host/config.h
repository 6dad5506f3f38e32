/* Sizes of the host build: whatever the simulated board takes. */
#define RB_MAX_PAYLOAD (1u << 20)
#define RB_MAX_MESSAGE (16u << 20)
#define RB_MAX_CELLS 4096u
#define RB_MAX_ROWS 1024u
#define RB_MAX_COLUMNS 1024u
#define RB_SHOTS 16384u
#define RB_VECTORS 1024u
#define RB_CODE_VALUES (1u << 21)
#define RB_CHIP_CELLS (1u << 20)
#define RB_SLICE_S 0.05
