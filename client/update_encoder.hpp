#pragma once

#include <covey/bytes.hpp>
#include <covey/client/trainer.hpp>
#include <covey/compression/compressor.hpp>
#include <covey/compressor_spec.hpp>
#include <covey/parameter_vector.hpp>
#include <covey/result.hpp>
#include <memory>
#include <optional>
#include <span>

namespace covey::client {

/// Error feedback: update += what compression lost of this device's earlier ones. A residual of
/// another length (of another network) or with a value that is not finite is dropped: what it would
/// have made up for is lost, the update itself is not.
void add_residual(const SharedBytes& residual, std::span<float> update);

/// Makes updates small as a plan says. Keeps the compressor and its memory between rounds, O(d).
/// One thread at a time.
class UpdateEncoder {
 public:
  struct Encoded {
    SharedBytes bytes;
    std::optional<SharedBytes> residual;  ///< with error feedback: fp32
  };
  /// update: R^d; overwritten. With error feedback the residual of `task` enters it, and what of
  /// the sum is lost is returned. Error for an update that is not finite.
  Result<Encoded> encode(const CompressorSpec& spec, const ModelLayout& layout,
                         const TrainingTask& task, std::span<float> update);

 private:
  std::unique_ptr<compression::Compressor> compressor_;  ///< of spec_ and layout_
  CompressorSpec spec_;
  ModelLayout layout_;
};

}  // namespace covey::client
