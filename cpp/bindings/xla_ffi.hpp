// What XLA hands to a function it calls, and what it expects back: the part used here of its stable C
// interface for foreign functions, https://openxla.org/xla/custom_call, so that building needs no JAX. XLA
// refuses functions written for a version it does not know; structures tell their sizes, and those are
// checked in each call.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rnnbptt::bindings::xla {

constexpr int api_major = 0, api_minor = 3;

// What extends a structure, in a list. Of interest is one kind only.
struct Extension {
  std::size_t struct_size;
  int type;
  Extension* next;
};

struct Version {
  std::size_t struct_size;
  Extension* extension;
  int major, minor;
};

// A function is called once with this extension before all else, to say which version it was written for.
constexpr int metadata_type = 1;

struct Metadata {
  std::size_t struct_size;
  Version api_version;
  std::uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct Error;  // XLA's own

enum class Code : int { invalid_argument = 3, resource_exhausted = 8, internal = 13 };

struct ErrorArguments {
  std::size_t struct_size;
  Extension* extension;
  const char* message;
  Code code;
};

// Functions that XLA offers, of which this is the first.
struct Api {
  std::size_t struct_size;
  Extension* extension;
  Version version;
  const void* internal;
  Error* (*create_error)(ErrorArguments*);
};

enum class DataType : int { s64 = 5, f32 = 11, f64 = 12 };

struct Buffer {
  std::size_t struct_size;
  Extension* extension;
  DataType dtype;
  void* data;
  std::int64_t rank;
  const std::int64_t* dims;
};

// Arguments or results: all of them buffers where each type is 1.
constexpr int buffer_type = 1;

struct Items {
  std::size_t struct_size;
  Extension* extension;
  std::int64_t size;
  const int* types;
  void* const* items;
};

// Attributes: numbers known when the program was compiled, by name, where the type is 3.
constexpr int scalar_type = 3;

struct Name {
  const char* data;
  std::size_t size;
};

struct Number {
  DataType dtype;
  const void* value;
};

struct Attributes {
  std::size_t struct_size;
  Extension* extension;
  std::int64_t size;
  const int* types;
  const Name* const* names;
  void* const* values;
};

constexpr int execute_stage = 3;

struct CallFrame {
  std::size_t struct_size;
  Extension* extension;
  const Api* api;
  void* context;
  int stage;
  Items arguments, results;
  Attributes attributes;
};

// Null when all went well.
using Handler = Error*(CallFrame*);

}  // namespace rnnbptt::bindings::xla
