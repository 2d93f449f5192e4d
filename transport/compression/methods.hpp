#pragma once

#include <covey/compression/compressor.hpp>
#include <memory>
#include <string_view>

/// One function per method; compressor.cpp chooses. All take a layout of at most 2^31 - 1 values
/// and a spec that has been checked.
namespace covey::compression {

std::unique_ptr<Compressor> make_plain(const CompressorSpec& spec, const ModelLayout& layout);
std::unique_ptr<Compressor> make_float16(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_linear(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_sign(const ModelLayout& layout);
std::unique_ptr<Compressor> make_drive(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_eden(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_top_k(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_random_k(const CompressorSpec& spec, std::size_t size);
std::unique_ptr<Compressor> make_rate_distortion(const CompressorSpec& spec, std::size_t size);
/// `inner`'s bytes compressed once more where that makes them fewer.
std::unique_ptr<Compressor> make_zstd(std::unique_ptr<Compressor> inner);

/// How many values a sparse method keeps: ceil(share * size), at least one where there is one.
std::size_t kept_values(double share, std::size_t size);

/// Error "NAME: 7 bytes where 10 values take 20" unless `bytes` is one of `sizes`.
Result<void> check_size(std::string_view name, std::size_t bytes, const SizeRange& sizes,
                        std::size_t values);

}  // namespace covey::compression
