import numpy as np
import pydicom

from recon_node.images import scale_series


def test_written_series_reads_back_with_its_pixels(write, make_images):
    images = make_images()
    pixels = scale_series(images)
    written = write(images, pixels=pixels)
    read = [pydicom.dcmread(instance.path) for instance in written]
    np.testing.assert_array_equal([ds.pixel_array for ds in read], pixels.data)
    assert [ds.SOPInstanceUID for ds in read] == [instance.sop_instance_uid for instance in written]
