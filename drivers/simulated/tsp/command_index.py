"""The names of the commands of the Series 2600B and of the 2450, and stand-ins for those that are
not simulated.

The names are those of the maker's own driver package tm_devices 3.7.0 (commands of the SMU2636B and
SMU2604B, made from the reference manual 2600BS-901-01, and of the SMU2450). A name that is not
simulated raises "not simulated: NAME" when it is read, set or called; a name that is in no index is
nil, as in Lua.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .lua_values import LuaError, LuaTable, Value

REGISTER = ("condition", "enable", "event", "ntr", "ptr")
SERIES_2600B = """
beeper: OFF ON beep() enable
bit: bitand() bitor() bitxor() clear() get() getfield() set() setfield() test() toggle()
bufferVar: appendmode basetimestamp cachemode capacity clear() clearcache() collectsourcevalues
  collecttimestamps fillcount fillmode measurefunctions[N] measureranges[N] n readings[N]
  sourcefunctions[N] sourceoutputstates[N] sourceranges[N] sourcevalues[N] statuses[N]
  timestampresolution timestamps[N]
dataqueue: CAPACITY add() clear() count next()
digio: TRIG_BYPASS TRIG_EITHER TRIG_FALLING TRIG_RISING TRIG_RISINGA TRIG_RISINGM
  TRIG_SYNCHRONOUS TRIG_SYNCHRONOUSA TRIG_SYNCHRONOUSM readbit() readport() writebit()
  writeport() writeprotect
digio.trigger[N]: EVENT_ID assert() clear() mode overrun pulsewidth release() reset() stimulus
  wait()
display: ANNUNCIATOR_4_WIRE ANNUNCIATOR_ARM ANNUNCIATOR_AUTO ANNUNCIATOR_EDIT ANNUNCIATOR_ERROR
  ANNUNCIATOR_FILTER ANNUNCIATOR_LISTEN ANNUNCIATOR_MATH ANNUNCIATOR_REAR ANNUNCIATOR_REL
  ANNUNCIATOR_REMOTE ANNUNCIATOR_SAMPLE ANNUNCIATOR_SRQ ANNUNCIATOR_STAR ANNUNCIATOR_TALK
  ANNUNCIATOR_TRIGGER DIGITS_4_5 DIGITS_5_5 DIGITS_6_5 DISABLE DONT_SAVE ENABLE KEY_AUTO
  KEY_CONFIG KEY_DIGITSA KEY_DIGITSB KEY_DISPLAY KEY_ENTER KEY_EXIT KEY_FILTERA KEY_FILTERB
  KEY_LEFT KEY_LIMITA KEY_LIMITB KEY_LOAD KEY_MEASA KEY_MEASB KEY_MENU KEY_MODEA KEY_MODEB
  KEY_NONE KEY_OUTPUTA KEY_OUTPUTB KEY_RANGEDOWN KEY_RANGEUP KEY_RECALL KEY_RELA KEY_RELB
  KEY_RIGHT KEY_RUN KEY_SPEEDA KEY_SPEEDB KEY_SRCA KEY_SRCB KEY_STORE KEY_TRIG LIMIT_IV LIMIT_P
  LOCK MEASURE_DCAMPS MEASURE_DCVOLTS MEASURE_OHMS MEASURE_WATTS SAVE SMUA SMUA_SMUB SMUB UNLOCK
  USER WHEEL_ENTER WHEEL_LEFT WHEEL_RIGHT clear() getannunciators() getcursor() getlastkey()
  gettext() inputvalue() locallockout menu() numpad prompt() screen sendkey() setcursor()
  settext() waitkey()
display.loadmenu: add() delete()
display.smuX: digits
display.smuX.limit: func
display.smuX.measure: func
display.trigger: EVENT_ID clear() overrun wait()
errorqueue: clear() count next()
eventlog: DISABLE DISCARD_NEWEST DISCARD_OLDEST ENABLE all() clear() count enable next()
  overwritemethod
format: ASCII DREAL NETWORK NORMAL REAL REAL32 REAL64 SREAL SWAPPED asciiprecision byteorder
  data
fs: chdir() cwd() is_dir() is_file() mkdir() readdir() rmdir()
gpib: address
io: close() flush() input() open() output() read() type() write()
lan: AUTO DISABLE ENABLE FULL HALF MANUAL MULTICAST TCP TRIG_EITHER TRIG_FALLING TRIG_RISING
  TRIG_RISINGA TRIG_RISINGM TRIG_SYNCHRONOUS TRIG_SYNCHRONOUSA TRIG_SYNCHRONOUSM UDP
  applysettings() autoconnect linktimeout lxidomain nagle reset() restoredefaults() timedwait
lan.config: duplex gateway ipaddress method speed subnetmask
lan.config.dns: address[N] domain dynamic hostname verify
lan.status: duplex gateway ipaddress macaddress speed subnetmask
lan.status.dns: address[N] name
lan.status.port: dst rawsocket telnet vxi11
lan.trigger[N]: EVENT_ID assert() clear() connect() connected disconnect() ipaddress mode
  overrun protocol pseudostate stimulus wait()
localnode: PASSWORD_ALL PASSWORD_LAN PASSWORD_NONE PASSWORD_WEB autolinefreq description license
  linefreq model password passwordmode prompts prompts4882 reset() revision serialno showerrors
node[N]: execute() getglobal() setglobal()
os: remove() rename() time()
script: anonymous delete() load() new() newautorun() restore() run()
scriptVar: autorun list() name run() save() source
serial: FLOW_HARDWARE FLOW_NONE PARITY_EVEN PARITY_NONE PARITY_ODD baud databits flowcontrol
  parity read() write()
setup: poweron recall() save()
smuX: ASYNC AUTORANGE_FOLLOW_LIMIT AUTORANGE_OFF AUTORANGE_ON AUTOZERO_AUTO AUTOZERO_OFF
  AUTOZERO_ONCE CALSET_DEFAULT CALSET_FACTORY CALSET_NOMINAL CALSET_PREVIOUS
  CALSTATE_CALIBRATING CALSTATE_LOCKED CALSTATE_UNLOCKED CAL_AUTO CAL_NEGATIVE CAL_POSITIVE
  CONTACT_FAST CONTACT_MEDIUM CONTACT_SLOW DELAY_AUTO DELAY_OFF DISABLE ENABLE FILL_ONCE
  FILL_WINDOW FILTER_MEDIAN FILTER_MOVING_AVG FILTER_OFF FILTER_ON FILTER_REPEAT_AVG LIMIT_AUTO
  OE_NONE OE_OUTPUT_OFF OUTPUT_DCAMPS OUTPUT_DCVOLTS OUTPUT_HIGH_Z OUTPUT_NORMAL OUTPUT_OFF
  OUTPUT_ON OUTPUT_ZERO REL_OFF REL_ON SENSE_CALA SENSE_LOCAL SENSE_REMOTE SETTLE_DIRECT_IRANGE
  SETTLE_FAST_ALL SETTLE_FAST_POLARITY SETTLE_FAST_RANGE SETTLE_SMOOTH SETTLE_SMOOTH_100NA
  SOURCE_HOLD SOURCE_IDLE abort() makebuffer() measureYandstep() nvbuffer1 nvbuffer2 reset()
  savebuffer() sense
smuX.buffer: getstats() recalculatestats()
smuX.cal: adjustdate date due lock() password polarity restore() save() state unlock()
smuX.contact: calibratehi() calibratelo() check() r() speed threshold
smuX.measure: Y() analogfilter autorangei autorangev autozero calibrateY() count delay
  delayfactor highcrangedelayfactor interval lowrangei lowrangev nplc overlappedY() rangei
  rangev
smuX.measure.filter: count enable type
smuX.measure.rel: enablei enablep enabler enablev leveli levelp levelr levelv
smuX.source: autorangei autorangev calibrateY() compliance delay func highc leveli levelv limiti
  limitp limitv lowrangei lowrangev offfunc offlimiti offlimitv offmode output
  outputenableaction rangei rangev settling sink
smuX.trigger: ARMED_EVENT_ID IDLE_EVENT_ID MEASURE_COMPLETE_EVENT_ID PULSE_COMPLETE_EVENT_ID
  SOURCE_COMPLETE_EVENT_ID SWEEPING_EVENT_ID SWEEP_COMPLETE_EVENT_ID autoclear count initiate()
smuX.trigger.arm: count set() stimulus
smuX.trigger.endpulse: action set() stimulus
smuX.trigger.endsweep: action
smuX.trigger.measure: Y() action set() stimulus
smuX.trigger.source: action limiti limitv linearY() listY() logY() set() stimulus
status: EAV ERROR_AVAILABLE ESB EVENT_SUMMARY_BIT MASTER_SUMMARY_STATUS MAV
  MEASUREMENT_SUMMARY_BIT MESSAGE_AVAILABLE MSB MSS OPERATION_SUMMARY_BIT OSB QSB
  QUESTIONABLE_SUMMARY_BIT SSB SYSTEM_SUMMARY_BIT condition node_enable node_event
  request_enable request_event reset()
status.measurement: <register> BAV BUFFER_AVAILABLE CURRENT_LIMIT ILMT INST INSTRUMENT_SUMMARY
  INT INTERLOCK OE OUTPUT_ENABLE READING_OVERFLOW ROF VLMT VOLTAGE_LIMIT
status.measurement.buffer_available: <register> SMUA SMUB
status.measurement.current_limit: <register> SMUA SMUB
status.measurement.instrument: <register> SMUA SMUB
status.measurement.instrument.smuX: <register> BAV ILMT ROF VLMT
status.measurement.reading_overflow: <register> SMUA SMUB
status.measurement.voltage_limit: <register> SMUA SMUB
status.operation: <register> CAL CALIBRATING INST INSTRUMENT_SUMMARY MEAS MEASURING PROG
  PROGRAM_RUNNING REM REMOTE_SUMMARY SWE SWEEPING TRGOVR TRIGGER_OVERRUN USER
status.operation.calibrating: <register> SMUA SMUB
status.operation.instrument: <register> DIGIO DIGITAL_IO LAN SMUA SMUB TRGBLND TRGTMR
  TRIGGER_BLENDER TRIGGER_TIMER TSPLINK
status.operation.instrument.digio: <register> TRGOVR
status.operation.instrument.digio.trigger_overrun: <register>
status.operation.instrument.lan: <register> CON CONF CONFIGURING CONNECTION TRGOVR
status.operation.instrument.lan.trigger_overrun: <register>
status.operation.instrument.smuX: <register> CAL CALIBRATING MEAS MEASURING SWE SWEEPING TRGOVR
status.operation.instrument.smuX.trigger_overrun: <register>
status.operation.instrument.trigger_blender: <register>
status.operation.instrument.trigger_blender.trigger_overrun: <register>
status.operation.instrument.trigger_timer: <register>
status.operation.instrument.trigger_timer.trigger_overrun: <register>
status.operation.instrument.tsplink: <register> TRGOVR
status.operation.instrument.tsplink.trigger_overrun: <register>
status.operation.measuring: <register> SMUA SMUB
status.operation.remote: <register> CAV COMMAND_AVAILABLE PRMPT PROMPTS_ENABLED
status.operation.sweeping: <register> SMUA SMUB
status.operation.trigger_overrun: <register> DIGIO DIGITAL_IO LAN SMUA SMUB TRGBLND TRGTMR
  TSPLINK
status.operation.user: <register>
status.questionable: <register> CAL CALIBRATION HIGHV_NOT_READY INST INSTRUMENT_SUMMARY OTEMP
  OVER_TEMPERATURE UNSTABLE_OUTPUT UO
status.questionable.calibration: <register> SMUA SMUB
status.questionable.instrument: <register> SMUA SMUB
status.questionable.instrument.smuX: <register> CAL OTEMP UO
status.questionable.over_temperature: <register> SMUA SMUB
status.questionable.unstable_output: <register> SMUA SMUB
status.standard: <register> CME COMMAND_ERROR DDE DEVICE_DEPENDENT_ERROR EXE EXECUTION_ERROR OPC
  OPERATION_COMPLETE PON POWER_ON QUERY_ERROR QYE URQ USER_REQUEST
status.system: <register> EXT EXTENSION_BIT
status.system2: <register> EXT EXTENSION_BIT
status.system3: <register> EXT EXTENSION_BIT
status.system4: <register> EXT EXTENSION_BIT
status.system5: <register>
timer: reset()
timer.measure: t()
trigger: EVENT_ID clear() wait()
trigger.blender[N]: EVENT_ID clear() orenable overrun reset() stimulus[M] wait()
trigger.generator[N]: EVENT_ID assert()
trigger.timer[N]: EVENT_ID clear() count delay delaylist overrun passthrough reset() stimulus
  wait()
tsplink: TRIG_BYPASS TRIG_EITHER TRIG_FALLING TRIG_RISING TRIG_RISINGA TRIG_RISINGM
  TRIG_SYNCHRONOUS TRIG_SYNCHRONOUSA TRIG_SYNCHRONOUSM group master node readbit() readport()
  reset() state writebit() writeport() writeprotect
tsplink.trigger[N]: EVENT_ID assert() clear() mode overrun pulsewidth release() reset() stimulus
  wait()
tspnet: TERM_CR TERM_CRLF TERM_LF TERM_LFCR clear() connect() disconnect() execute() idn()
  read() readavailable() reset() termination() timeout write()
tspnet.tsp: abort() abortonconnect rbtablecopy() runscript()
userstring: add() delete() get()
: ConfigPulseIMeasureV() ConfigPulseIMeasureVSweepLin() ConfigPulseIMeasureVSweepLog()
  ConfigPulseVMeasureI() ConfigPulseVMeasureISweepLin() ConfigPulseVMeasureISweepLog()
  InitiatePulseTest() InitiatePulseTestDual() PulseIMeasureV() PulseVMeasureI()
  QueryPulseConfig() SweepILinMeasureV() SweepIListMeasureV() SweepILogMeasureV()
  SweepVLinMeasureI() SweepVListMeasureI() SweepVLogMeasureI() delay() exit() gettimezone()
  gm_isweep() gm_vsweep() i_leakage_measure() i_leakage_threshold() makegetter() makesetter()
  meminfo() opc() print() printbuffer() printnumber() reset() savebuffer() settime()
  settimezone() waitcomplete()
"""
"""One line a table: its name, then what is in it. `smuX` stands for each channel, `[N]` for each
member, `Y` for each quantity; `<register>` for the five parts of a status register.
"""

SERIES_2450 = """
beeper: beep()
buffer: DIGITS_3_5 DIGITS_4_5 DIGITS_5_5 DIGITS_6_5 DIGITS_7_5 DIGITS_8_5 EXPR_ADD EXPR_AVERAGE
  EXPR_DIVIDE EXPR_EXPONENT EXPR_LOG10 EXPR_MULTIPLY EXPR_NONE EXPR_POLY EXPR_POWER EXPR_RATE
  EXPR_RECIPROCAL EXPR_SQROOT EXPR_SUBTRACT FILL_CONTINUOUS FILL_ONCE OFF ON SAVE_FORMAT_TIME
  SAVE_RAW_TIME SAVE_RELATIVE_TIME SAVE_TIMESTAMP_TIME STAT_LIMIT STAT_LIMIT1_HIGH
  STAT_LIMIT1_LOW STAT_LIMIT2_HIGH STAT_LIMIT2_LOW STAT_ORIGIN STAT_OUTPUT STAT_OVER_TEMP
  STAT_PROTECTION STAT_QUESTIONABLE STAT_READBACK STAT_REL STAT_SCAN STAT_SENSE STAT_START_GROUP
  STAT_TERMINAL STYLE_COMPACT STYLE_FULL STYLE_STANDARD STYLE_WRITABLE STYLE_WRITABLE_FULL
  UNIT_AMP UNIT_AMP_AC UNIT_CELSIUS UNIT_CUSTOM1 UNIT_CUSTOM2 UNIT_CUSTOM3 UNIT_DAC UNIT_DBM
  UNIT_DECIBEL UNIT_DIO UNIT_FAHRENHEIT UNIT_FARAD UNIT_HERTZ UNIT_KELVIN UNIT_NONE UNIT_OHM
  UNIT_PERCENT UNIT_RATIO UNIT_RECIPROCAL UNIT_SECOND UNIT_TOT UNIT_VOLT UNIT_VOLT_AC UNIT_WATT
  UNIT_X clearstats() delete() getstats() make() save() saveappend()
buffer.write: format() reading()
dataqueue: CAPACITY add() clear() count next()
digio: MODE_DIGITAL_IN MODE_DIGITAL_OPEN_DRAIN MODE_DIGITAL_OUT MODE_SYNCHRONOUS_ACCEPTOR
  MODE_SYNCHRONOUS_MASTER MODE_TRIGGER_IN MODE_TRIGGER_OPEN_DRAIN MODE_TRIGGER_OUT STATE_HIGH
  STATE_LOW readport() writeport()
digio.line[N]: mode reset() state
display: BUTTONS_CANCEL BUTTONS_NONE BUTTONS_OK BUTTONS_OKCANCEL BUTTONS_YESNO
  BUTTONS_YESNOCANCEL BUTTON_CANCEL BUTTON_NO BUTTON_OK BUTTON_YES FORMAT_EXPONENT FORMAT_PREFIX
  NFORMAT_DECIMAL NFORMAT_EXPONENT NFORMAT_INTEGER NFORMAT_PREFIX SCREEN_GRAPH
  SCREEN_GRAPH_SWIPE SCREEN_HISTOGRAM SCREEN_HOME SCREEN_HOME_LARGE_READING SCREEN_PROCESSING
  SCREEN_READING_TABLE SCREEN_SETTINGS_SWIPE SCREEN_SOURCE_SWIPE SCREEN_STATS_SWIPE
  SCREEN_USER_SWIPE SFORMAT_ANY SFORMAT_BUFFER_NAME SFORMAT_UPPER SFORMAT_UPPER_LOWER
  STATE_BLACKOUT STATE_LCD_100 STATE_LCD_25 STATE_LCD_50 STATE_LCD_75 STATE_LCD_OFF TEXT1 TEXT2
  activebuffer changescreen() clear() delete() lightstate prompt() readingformat settext()
  waitevent()
display.input: number() option() prompt() string()
eventlog: SEV_ALL SEV_ERROR SEV_INFO SEV_WARN clear() getcount() next() post() save()
file: MODE_APPEND MODE_READ MODE_WRITE READ_ALL READ_LINE READ_NUMBER close() flush() mkdir()
  open() read() usbdriveexists() write()
format: ASCII BIGENDIAN LITTLEENDIAN REAL32 REAL64 asciiprecision byteorder data
fs: chdir() cwd() is_dir() is_file() mkdir() readdir() rmdir()
gpib: address
lan: MODE_AUTO MODE_MANUAL OFF ON PROTOCOL_MULTICAST PROTOCOL_TCP PROTOCOL_UDP ipconfig()
  lxidomain macaddress
localnode: ACCESS_EXCLUSIVE ACCESS_FULL ACCESS_LOCKOUT ACCESS_PROTECTED DISABLE ENABLE access
  gettime() linefreq model password prompts prompts4882 serialno settime() showevents version
node[N]: execute() getglobal() setglobal()
script: delete() load()
smu: ATTR_MEAS_AUTO_ZERO ATTR_MEAS_COUNT ATTR_MEAS_DIGITS ATTR_MEAS_FILTER_COUNT
  ATTR_MEAS_FILTER_ENABLE ATTR_MEAS_FILTER_TYPE ATTR_MEAS_LIMIT_AUDIBLE_1
  ATTR_MEAS_LIMIT_AUDIBLE_2 ATTR_MEAS_LIMIT_AUTO_CLEAR_1 ATTR_MEAS_LIMIT_AUTO_CLEAR_2
  ATTR_MEAS_LIMIT_ENABLE_1 ATTR_MEAS_LIMIT_ENABLE_2 ATTR_MEAS_LIMIT_FAIL_1
  ATTR_MEAS_LIMIT_FAIL_2 ATTR_MEAS_LIMIT_HIGH_1 ATTR_MEAS_LIMIT_HIGH_2 ATTR_MEAS_LIMIT_LOW_1
  ATTR_MEAS_LIMIT_LOW_2 ATTR_MEAS_MATH_ENABLE ATTR_MEAS_MATH_FORMAT ATTR_MEAS_MATH_MXB_BF
  ATTR_MEAS_MATH_MXB_MF ATTR_MEAS_MATH_PERCENT ATTR_MEAS_NPLC ATTR_MEAS_OFFSET_COMP
  ATTR_MEAS_RANGE ATTR_MEAS_RANGE_AUTO ATTR_MEAS_RANGE_HIGH ATTR_MEAS_RANGE_LOW
  ATTR_MEAS_RANGE_REBOUND ATTR_MEAS_REL_ENABLE ATTR_MEAS_REL_LEVEL ATTR_MEAS_SENSE
  ATTR_MEAS_UNIT ATTR_MEAS_USER_DELAY_N ATTR_SRC_DELAY ATTR_SRC_DELAY_AUTO ATTR_SRC_FUNCTION
  ATTR_SRC_HIGHC ATTR_SRC_LEVEL ATTR_SRC_LIMIT_LEVEL ATTR_SRC_LIMIT_TRIPPED ATTR_SRC_OFFMODE
  ATTR_SRC_PROTECT_LEVEL ATTR_SRC_PROTECT_TRIPPED ATTR_SRC_RANGE ATTR_SRC_RANGE_AUTO
  ATTR_SRC_READBACK ATTR_SRC_USER_DELAY_N AUDIBLE_FAIL AUDIBLE_NONE AUDIBLE_PASS DELAY_AUTO
  DIGITS_3_5 DIGITS_4_5 DIGITS_5_5 DIGITS_6_5 FAIL_BOTH FAIL_HIGH FAIL_LOW FAIL_NONE
  FILTER_MOVING_AVG FILTER_REPEAT_AVG FUNC_DC_CURRENT FUNC_DC_VOLTAGE FUNC_RESISTANCE INFINITE
  MATH_MXB MATH_PERCENT MATH_RECIPROCAL OFF OFFMODE_GUARD OFFMODE_HIGHZ OFFMODE_NORMAL
  OFFMODE_ZERO ON PROTECT_100V PROTECT_10V PROTECT_120V PROTECT_140V PROTECT_160V PROTECT_180V
  PROTECT_20V PROTECT_2V PROTECT_40V PROTECT_5V PROTECT_60V PROTECT_80V PROTECT_NONE RANGE_AUTO
  RANGE_BEST RANGE_FIXED SENSE_2WIRE SENSE_4WIRE TERMINALS_FRONT TERMINALS_REAR UNIT_AMP
  UNIT_OHM UNIT_VOLT UNIT_WATT reset() terminals
smu.interlock: enable tripped
smu.measure: autorange autorangehigh autorangelow autorangerebound count displaydigits func
  getattribute() nplc offsetcompensation range read() readwithtime() sense setattribute() unit
  userdelay[N]
smu.measure.autozero: enable once()
smu.measure.configlist: catalog() create() delete() query() recall() size() store() storefunc()
smu.measure.filter: count enable type
smu.measure.limit[Y]: audible autoclear clear() enable fail
smu.measure.limit[Y].high: value
smu.measure.limit[Y].low: value
smu.measure.math: enable format percent
smu.measure.math.mxb: bfactor mfactor
smu.measure.rel: acquire() enable level
smu.source: autodelay autorange delay func getattribute() highc level offmode output range
  readback setattribute() sweeplinear() sweeplinearstep() sweeplist() sweeplog() userdelay[N]
smu.source.configlist: catalog() create() delete() query() recall() size() store() storefunc()
smu.source.ilimit: level tripped
smu.source.protect: level tripped
smu.source.vlimit: level tripped
status: EAV ESB MAV MSB MSS OSB QSB clear() condition preset() request_enable
status.operation: condition enable event getmap() setmap()
status.questionable: condition enable event getmap() setmap()
status.standard: OPC PON QYE enable event
timer: cleartime() gettime()
trigger: BLOCK_BRANCH_ALWAYS BLOCK_BRANCH_COUNTER BLOCK_BRANCH_DELTA BLOCK_BRANCH_LIMIT_CONSTANT
  BLOCK_BRANCH_LIMIT_DYNAMIC BLOCK_BRANCH_ONCE BLOCK_BRANCH_ONCE_EXCLUDED BLOCK_BRANCH_ON_EVENT
  BLOCK_BUFFER_CLEAR BLOCK_CONFIG_NEXT BLOCK_CONFIG_PREV BLOCK_CONFIG_RECALL
  BLOCK_DELAY_CONSTANT BLOCK_DELAY_DYNAMIC BLOCK_DIGITAL_IO BLOCK_LOG_EVENT BLOCK_MEASURE
  BLOCK_MEASURE_DIGITIZE BLOCK_NOP BLOCK_NOTIFY BLOCK_RESET_BRANCH_COUNT BLOCK_SOURCE_OUTPUT
  BLOCK_WAIT CLEAR_ENTER CLEAR_NEVER CONT_AUTO CONT_OFF CONT_RESTART COUNT_AUTO COUNT_INFINITE
  COUNT_STOP EDGE_EITHER EDGE_FALLING EDGE_RISING EVENT_BLENDER1 EVENT_BLENDER2 EVENT_COMMAND
  EVENT_DIGIO1 EVENT_DIGIO2 EVENT_DIGIO3 EVENT_DIGIO4 EVENT_DIGIO5 EVENT_DIGIO6 EVENT_DIGION
  EVENT_DISPLAY EVENT_LANN EVENT_NONE EVENT_NOTIFY1 EVENT_NOTIFY2 EVENT_NOTIFY3 EVENT_NOTIFY4
  EVENT_NOTIFY5 EVENT_NOTIFY6 EVENT_NOTIFY7 EVENT_NOTIFY8 EVENT_NOTIFYN EVENT_SOURCE_LIMIT
  EVENT_TIMER1 EVENT_TIMER2 EVENT_TIMER3 EVENT_TIMER4 EVENT_TSPLINK1 EVENT_TSPLINK2
  EVENT_TSPLINK3 EVENT_TSPLINKN LIMIT_ABOVE LIMIT_BELOW LIMIT_INSIDE LIMIT_OUTSIDE
  LOGIC_NEGATIVE LOGIC_POSITIVE LOG_ERROR1 LOG_ERROR2 LOG_ERROR3 LOG_ERROR4 LOG_INFO1 LOG_INFO2
  LOG_INFO3 LOG_INFO4 LOG_WARN1 LOG_WARN2 LOG_WARN3 LOG_WARN4 LOG_WARN_ABORT OFF ON
  STATE_ABORTED STATE_ABORTING STATE_BUILDING STATE_EMPTY STATE_FAILED STATE_IDLE STATE_RUNNING
  STATE_WAITING USER_DELAY_M1 USER_DELAY_M2 USER_DELAY_M3 USER_DELAY_M4 USER_DELAY_M5
  USER_DELAY_S1 USER_DELAY_S2 USER_DELAY_S3 USER_DELAY_S4 USER_DELAY_S5 WAIT_AND WAIT_OR clear()
  continuous wait()
trigger.blender[N]: clear() orenable overrun reset() stimulus[M] wait()
trigger.digin[N]: clear() edge overrun wait()
trigger.digout[N]: assert() logic pulsewidth release() stimulus
trigger.lanin[N]: clear() edge overrun wait()
trigger.lanout[N]: assert() connect() connected disconnect() ipaddress logic protocol stimulus
trigger.model: abort() getblocklist() getbranchcount() initiate() load() pause() resume()
  setblock() state()
trigger.timer[N]: clear() count delay delaylist enable reset() wait()
trigger.timer[N].start: fractionalseconds generate overrun seconds stimulus
trigger.tsplinkin[N]: clear() edge overrun wait()
trigger.tsplinkout[N]: assert() logic pulsewidth release() stimulus
tsplink: MODE_DIGITAL_OPEN_DRAIN MODE_SYNCHRONOUS_ACCEPTOR MODE_SYNCHRONOUS_MASTER
  MODE_TRIGGER_OPEN_DRAIN STATE_HIGH STATE_LOW group initialize() master node readport() state
  writeport()
tsplink.line[N]: mode reset() state
tspnet: TERM_CR TERM_CRLF TERM_LF TERM_LFCR clear() connect() disconnect() execute() idn()
  read() readavailable() reset() termination() timeout write()
tspnet.tsp: abort() abortonconnect rbtablecopy() runscript()
upgrade: previous() unit()
userstring: add() delete() get()
: available() createconfigscript() delay() exit() opc() print() printbuffer() printnumber()
  reset() waitcomplete()
"""


def entries(index: str) -> Iterator[str]:
    """Whole names of an index, `smuX` and its like as they stand there."""
    table = ""
    for line in index.strip().splitlines():
        if not line.startswith("  "):
            table, _, line = line.partition(":")
        for leaf in line.split():
            for part in REGISTER if leaf == "<register>" else (leaf,):
                yield f"{table}.{part}" if table else part


def expanded(name: str, channels: Iterable[str]) -> list[str]:
    """A name for each channel and each quantity that it stands for."""
    names = [name.replace("smuX", f"smu{each}") for each in channels] if "smuX" in name else [name]
    leaf = name.rpartition(".")[2]
    if "Y" not in leaf or leaf.isupper():
        return names
    many = "measure" in name and "calibrate" not in name
    kinds = ("v", "i", "r", "p", "iv") if many else ("v", "i")
    return [each.replace("Y", kind) for each in names for kind in kinds]


def stand_in(
    table: LuaTable, index: str, channels: Iterable[str], without: tuple[str, ...] = ()
) -> None:
    """Let every name of an index that is not in `table` (the globals) raise `LuaError`; those that
    begin with one of `without` are not there on this model.
    """
    channels = tuple(channels)
    missing = () if "b" in channels else ("SMUB", "SMUA_SMUB")
    for entry in entries(index):
        if entry.startswith(("bufferVar.", "scriptVar.")) or entry.rpartition(".")[2] in missing:
            continue
        for name in expanded(entry, channels):
            if not (without and name.startswith(without)):
                _place(table, name.split("."), name)


def _place(table: LuaTable, parts: list[str], name: str) -> None:
    part, *rest = parts
    key = part.removesuffix("()").partition("[")[0]
    is_there = key in table.values or key in table.attributes
    if not rest or ("[" in part and not is_there):
        if not is_there:
            _absent(table, key, name, is_function=part.endswith("()"))
        return
    if not is_there:
        table.values[key] = LuaTable()
    inner = table.values.get(key)
    if not isinstance(inner, LuaTable):
        return
    for each in inner.values.values() if "[" in part else (inner,):
        if isinstance(each, LuaTable):
            _place(each, rest, name)


def _absent(table: LuaTable, key: str, name: str, *, is_function: bool) -> None:
    def refuse(*_: Value) -> Value:
        raise LuaError(f"not simulated: {name}")

    if is_function:
        table.values[key] = refuse
    else:
        table.attributes[key] = (refuse, refuse)


def name_constants(table: LuaTable, index: str) -> None:
    """Let every constant of an index be a text, its own name, as the 2450 shows it."""
    for name in entries(index):
        *path, leaf = name.split(".")
        if path and leaf.isupper() and "[" not in name:
            inner = table
            for part in path:
                if not isinstance(inner.values.get(part), LuaTable):
                    inner.values[part] = LuaTable()
                inner = inner.values[part]
            inner.values.setdefault(leaf, name)
