# Libraries from the distribution. What each is for: docs/ARCHITECTURE.md, "Dependencies".
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(GNUTLS REQUIRED IMPORTED_TARGET gnutls)
pkg_check_modules(NGTCP2 REQUIRED IMPORTED_TARGET libngtcp2 libngtcp2_crypto_gnutls)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
find_package(ZLIB REQUIRED)
find_package(simdjson REQUIRED)
# Without pkg-config: its flags link the trainer too, which only tests need.
find_library(STAGECOACH_SENTENCEPIECE sentencepiece REQUIRED)
find_library(STAGECOACH_SENTENCEPIECE_TRAIN sentencepiece_train REQUIRED)

# Linking with mold and compiling through ccache where they are there: both only save time.
find_program(STAGECOACH_MOLD mold)
if(STAGECOACH_MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  # Without it mold 1.10 may put the only thread-local data at the end of a page that is not mapped, where the code happens to end
  # so: such a program does not start ("cannot apply additional memory protection after relocation").
  add_link_options(-fuse-ld=mold -Wl,-z,separate-loadable-segments)
endif()
find_program(STAGECOACH_CCACHE ccache)
if(STAGECOACH_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${STAGECOACH_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${STAGECOACH_CCACHE})
endif()
