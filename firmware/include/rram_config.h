/* Sizes of everything that the library keeps. A board that needs other sizes gives the compiler
 * a header of its own: -DRB_CONFIG='"my_config.h"'; what that leaves out stays as it is here. */
#ifndef RRAM_CONFIG_H
#define RRAM_CONFIG_H

#ifdef RB_CONFIG
#include RB_CONFIG
#endif

#ifndef RB_MAX_PAYLOAD
#define RB_MAX_PAYLOAD 1024u /* bytes of payload in one frame of the host, at least 1024 */
#endif
#ifndef RB_MAX_MESSAGE
#define RB_MAX_MESSAGE 8192u /* bytes of the longest request, and of the longest reply */
#endif
#ifndef RB_MAX_CELLS
#define RB_MAX_CELLS 256u /* cells of one operation */
#endif
#ifndef RB_MAX_ROWS
#define RB_MAX_ROWS 64u /* rows of a tile */
#endif
#ifndef RB_MAX_COLUMNS
#define RB_MAX_COLUMNS 64u /* columns of a tile */
#endif
#ifndef RB_SHOTS
#define RB_SHOTS 16u /* shots handed to the hardware at once, at least RB_MAX_ROWS for products */
#endif
#ifndef RB_VECTORS
#define RB_VECTORS 1u /* input vectors handed to the hardware at once */
#endif
#ifndef RB_CODE_VALUES
#define RB_CODE_VALUES 2048u /* order of the code times columns of a block, for READ BLOCKS */
#endif
#ifndef RB_CHIP_CELLS
#define RB_CHIP_CELLS 4096u /* cells of the chip */
#endif
#ifndef RB_SLICE_S
#define RB_SLICE_S 0.02 /* real seconds between two looks at the link, as far as shots allow */
#endif

#endif
